//! What Consul's configuration says of DNS.

use std::time::Duration;

use quorate_client::duration;

use super::configuration::{Configuration, DnsConfig, about};
use crate::dns::settings::{
    DEFAULT_DOMAIN, DnsSettings, ServiceTtls, SoaTimes, domain, ttl_seconds,
};
use crate::process::config::ConfigError;

impl Configuration {
    /// Whether it says how DNS is to be served.
    pub(super) fn speaks_of_dns(&self) -> bool {
        let has_domain = [&self.domain, &self.alt_domain].into_iter().any(Option::is_some);
        has_domain || self.dns_config != DnsConfig::default()
    }

    /// How DNS is served.
    pub(super) fn dns(&self) -> Result<DnsSettings, ConfigError> {
        let given = &self.dns_config;
        if given.allow_stale == Some(false) {
            let why = "false: DNS is answered from each server's own state, so that it works without a leader";
            return Err(about("dns_config.allow_stale", why));
        }
        let domains = [("domain", &self.domain), ("alt_domain", &self.alt_domain)]
            .into_iter()
            .map(|(key, text)| (key, text.as_deref().filter(|text| !text.trim().is_empty())))
            .filter_map(|(key, text)| {
                let text = text.or_else(|| (key == "domain").then_some(DEFAULT_DOMAIN))?;
                Some(domain(text).map_err(|why| about(key, &why)))
            });
        let default = SoaTimes::default();
        let limit = |given: Option<usize>| given.filter(|limit| *limit > 0);
        Ok(DnsSettings {
            domains: domains.collect::<Result<_, _>>()?,
            node_ttl: ttl("dns_config.node_ttl", given.node_ttl.as_deref())?,
            service_ttl: given.service_ttls()?,
            only_passing: given.only_passing.unwrap_or(false),
            udp_answers_max: limit(given.udp_answer_limit),
            addresses_max: limit(given.a_record_limit),
            marks_truncation: given.enable_truncate.unwrap_or(true),
            node_meta: given.enable_additional_node_meta_txt.unwrap_or(true),
            soa: SoaTimes {
                refresh: given.soa.refresh.unwrap_or(default.refresh),
                retry: given.soa.retry.unwrap_or(default.retry),
                expire: given.soa.expire.unwrap_or(default.expire),
                negative_ttl: given.soa.min_ttl.unwrap_or(default.negative_ttl),
            },
            stale_max: given.stale_max()?,
        })
    }
}

impl DnsConfig {
    fn service_ttls(&self) -> Result<ServiceTtls, ConfigError> {
        let mut ttls = ServiceTtls::default();
        for (service, text) in &self.service_ttl {
            let key = format!("dns_config.service_ttl {service:?}");
            ttls.add(service, ttl(&key, Some(text))?);
        }
        Ok(ttls)
    }

    fn stale_max(&self) -> Result<Option<Duration>, ConfigError> {
        let Some(text) = self.max_stale.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let nanos =
            duration::parse(text).map_err(|why| about("dns_config.max_stale", &why.to_string()))?;
        Ok(u64::try_from(nanos).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos))
    }
}

fn ttl(key: &str, text: Option<&str>) -> Result<u32, ConfigError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(0) };
    let nanos = duration::parse(text).map_err(|why| about(key, &why.to_string()))?;
    ttl_seconds(nanos).map_err(|why| about(key, &why))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(file: Value) -> Result<DnsSettings, String> {
        let configuration: Configuration = serde_json::from_value(file).unwrap();
        configuration.dns().map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_configuration_says_of_dns_is_done() {
        assert_eq!(read(json!({})).unwrap(), DnsSettings::default());
        let settings = read(json!({
            "domain": "x.example.", "alt_domain": "consul",
            "dns_config": {
                "allow_stale": true, "max_stale": "5s", "node_ttl": "10s", "only_passing": true,
                "service_ttl": [{"*": "5s", "web": "1m"}], "udp_answer_limit": 3, "a_record_limit": 1,
                "enable_truncate": false, "enable_additional_node_meta_txt": false,
                "soa": {"refresh": 1, "retry": 2, "expire": 3, "min_ttl": 4},
            },
        }))
        .unwrap();
        let domains: Vec<_> = settings.domains.iter().map(|name| name.to_ascii()).collect();
        assert_eq!(domains, ["x.example.", "consul."]);
        assert_eq!(
            (settings.node_ttl, settings.service_ttl.of("web"), settings.service_ttl.of("db")),
            (10, 60, 5)
        );
        assert_eq!((settings.udp_answers_max, settings.addresses_max), (Some(3), Some(1)));
        assert_eq!(
            (settings.only_passing, settings.marks_truncation, settings.node_meta),
            (true, false, false)
        );
        assert_eq!(settings.soa, SoaTimes { refresh: 1, retry: 2, expire: 3, negative_ttl: 4 });
        assert_eq!(settings.stale_max, Some(Duration::from_secs(5)));
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        for (file, key) in [
            (json!({"domain": "a b"}), "domain"),
            (json!({"alt_domain": "in-addr.arpa"}), "alt_domain"),
            (json!({"dns_config": {"allow_stale": false}}), "dns_config.allow_stale"),
            (json!({"dns_config": {"max_stale": "5"}}), "dns_config.max_stale"),
            (json!({"dns_config": {"node_ttl": "-1s"}}), "dns_config.node_ttl"),
            (
                json!({"dns_config": {"service_ttl": {"web": "x"}}}),
                "dns_config.service_ttl \"web\"",
            ),
        ] {
            let why = read(file).unwrap_err();
            assert!(why.starts_with(&format!("{key}: ")), "{why}");
        }
    }
}
