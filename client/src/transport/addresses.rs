//! Where the servers are: addresses as users write them, and the environment.

use crate::error::Error;
use crate::tls::boolean;

/// The servers' addresses, separated by commas.
const QUORATE_HTTP_ADDR: &str = "QUORATE_HTTP_ADDR";
/// What Consul's clients read; used where [`QUORATE_HTTP_ADDR`] is not set.
const CONSUL_HTTP_ADDR: &str = "CONSUL_HTTP_ADDR";
/// Whether addresses without a scheme are those of TLS, as Consul's clients read it.
const CONSUL_HTTP_SSL: &str = "CONSUL_HTTP_SSL";
/// Where a server is that was started without flags.
const DEFAULT: &str = "http://127.0.0.1:8500";

/// The addresses that the environment names.
///
/// # Errors
/// [`Error::Configuration`]: one of them is none.
pub(crate) fn from_environment() -> Result<Vec<String>, Error> {
    chosen(|name| std::env::var(name).ok())
}

fn chosen(read: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, Error> {
    let given = |name| read(name).filter(|text| !text.trim().is_empty());
    if let Some(text) = given(QUORATE_HTTP_ADDR) {
        return parts(&text).map(parse).collect();
    }
    let ssl = given(CONSUL_HTTP_SSL);
    let ssl = ssl.map_or(Ok(false), |text| boolean(CONSUL_HTTP_SSL, &text))?;
    let text = given(CONSUL_HTTP_ADDR).unwrap_or_else(|| DEFAULT.to_owned());
    let secured = |part: &str| match part.contains("://") || !ssl {
        true => part.to_owned(),
        false => format!("https://{part}"),
    };
    parts(&text).map(|part| parse(&secured(part))).collect()
}

/// Addresses separated by commas.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// One address: `http://HOST:PORT`, `https://HOST:PORT`, or without a scheme, as Consul's clients take it.
///
/// # Errors
/// [`Error::Configuration`]: it is none, or one of a kind that is not served.
pub(crate) fn parse(text: &str) -> Result<String, Error> {
    let refused = |why: &str| Error::Configuration(format!("address {text:?}: {why}"));
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = reqwest::Url::parse(&with_scheme).map_err(|error| refused(&error.to_string()))?;
    match url.scheme() {
        "http" | "https" => {}
        _ => return Err(refused("only http:// and https:// are known")),
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(refused("it names no host"));
    }
    Ok(with_scheme.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<Vec<String>, Error> {
        chosen(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_names_several_servers() {
        let quorate = (QUORATE_HTTP_ADDR, "http://a:8500, b:8510/,");
        let consul = (CONSUL_HTTP_ADDR, "c:8500");
        assert_eq!(from(&[quorate, consul]).unwrap(), ["http://a:8500", "http://b:8510"]);
        assert_eq!(from(&[(QUORATE_HTTP_ADDR, " "), consul]).unwrap(), ["http://c:8500"]);
        assert_eq!(from(&[]).unwrap(), ["http://127.0.0.1:8500"]);
        let ssl = (CONSUL_HTTP_SSL, "true");
        assert_eq!(from(&[ssl, consul]).unwrap(), ["https://c:8500"]);
        assert_eq!(from(&[ssl, quorate]).unwrap(), ["http://a:8500", "http://b:8510"]);
        assert_eq!(from(&[(QUORATE_HTTP_ADDR, "https://a:1")]).unwrap(), ["https://a:1"]);
    }

    #[test]
    fn an_address_that_is_none_is_named() {
        for (text, why) in [
            ("unix:///run/consul", "only http://"),
            ("ftp://a:8500", "only http://"),
            ("http://", "address \"http://\""),
            ("a:port", "invalid port"),
        ] {
            let error = from(&[(QUORATE_HTTP_ADDR, text)]).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
