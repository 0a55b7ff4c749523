//! When the certificates that this process uses end, for whoever has to renew them.

use std::sync::Arc;

use tokio_rustls::rustls::pki_types::UnixTime;

use super::https::Https;
use super::members::Members;

const SECONDS_PER_DAY: i64 = 24 * 3_600;

/// What may end; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    /// What members prove themselves with, and the CA that they check others against.
    pub members: Option<Members>,
    /// What clients are shown.
    pub https: Option<Arc<Https>>,
}

/// How long a certificate is still valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Which it is: `rpc`, `rpc-ca` or `https`.
    pub certificate: &'static str,
    /// Whole days; negative from the moment on at which it has ended.
    pub days: i64,
}

impl Ends {
    /// What is left of each now, by the machine's clock, which certificates go by.
    #[must_use]
    pub fn left(&self) -> Vec<Left> {
        self.left_at(UnixTime::now())
    }

    fn left_at(&self, now: UnixTime) -> Vec<Left> {
        let members = self.members.as_ref().map(|members| members.credentials().ends());
        let members = members.into_iter().flat_map(|(own, ca)| [("rpc", own), ("rpc-ca", ca)]);
        let https = self.https.as_ref().map(|https| ("https", https.ends()));
        let all = members.chain(https);
        all.map(|(certificate, end)| Left { certificate, days: days(end, now) }).collect()
    }
}

/// Whole days from `now` to `end`.
fn days(end: UnixTime, now: UnixTime) -> i64 {
    let seconds = |time: UnixTime| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    seconds(end).saturating_sub(seconds(now)).div_euclid(SECONDS_PER_DAY)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn days_are_whole_ones_and_negative_once_it_has_ended() {
        let day = |days: i64, seconds: i64| {
            let seconds = u64::try_from(days * SECONDS_PER_DAY + seconds).unwrap();
            UnixTime::since_unix_epoch(Duration::from_secs(seconds))
        };
        assert_eq!(days(day(20, 1), day(6, 0)), 14);
        assert_eq!(days(day(20, 0), day(6, 1)), 13);
        assert_eq!(days(day(20, 5), day(20, 5)), 0);
        assert_eq!(days(day(20, 5), day(20, 6)), -1);
    }

    #[test]
    fn without_tls_nothing_ends() {
        assert!(Ends::default().left().is_empty());
    }
}
