//! Why a handshake failed, and what to do about it.

use std::io;

use jiff::Timestamp;
use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// What renews a certificate.
pub const RENEWAL: &str = "make a new one with `quorate tls cert`, put it in the place of the old one, and send the \
                           process that uses it SIGHUP";

/// What renews a CA, without an interruption.
pub const CA_RENEWAL: &str = "make a new CA with `quorate tls ca` in another directory, put its certificate behind the \
                              old one in the file of every member and send SIGHUP, then give all of them certificates \
                              of the new one, and take the old one out last";

/// How [`RENEWAL`] ends for a process that runs.
const RELOAD: &str = "send the process that uses it SIGHUP";
/// How it ends for one that could not start.
const RESTART: &str = "start it again";

/// Names that a message quotes.
const QUOTED_MAX: usize = 4;

/// A sentence about a process's own files, for one that does not start with them.
#[must_use]
pub fn at_start(sentence: &str) -> String {
    sentence.replace(RELOAD, RESTART)
}

/// The sentence for an operator, if TLS was the reason.
#[must_use]
pub fn of_io(error: &io::Error) -> Option<String> {
    inside(error).map(sentence)
}

/// The sentence of the first TLS error among the causes of an error.
#[must_use]
pub fn of_any(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    first_of(error).map(sentence)
}

/// The same for whoever asked a server at its port for clients: what is wrong, and what mends it.
#[must_use]
pub fn of_request(error: &(dyn std::error::Error + 'static)) -> Option<(String, &'static str)> {
    let tls = first_of(error)?;
    Some((what(tls), remedy(tls)))
}

/// The first TLS error among the causes of an error.
fn first_of<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let wrapped = || error.downcast_ref::<io::Error>().and_then(inside);
        if let Some(tls) = error.downcast_ref::<Error>().or_else(wrapped) {
            return Some(tls);
        }
        cause = error.source();
    }
    None
}

/// The TLS error that is the reason of an error.
fn inside(error: &io::Error) -> Option<&Error> {
    let reason = error.get_ref()?;
    match reason.downcast_ref::<io::Error>() {
        Some(wrapped) => inside(wrapped),
        None => reason.downcast_ref::<Error>(),
    }
}

/// What mends it, for a client of the port for clients.
fn remedy(error: &Error) -> &'static str {
    match error {
        Error::InvalidCertificate(_) if is_expired(error) => RENEWAL,
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            "ask it by a name that its certificate has; or make a new one with `quorate tls cert` and --host, and send \
             the server SIGHUP"
        }
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => {
            "name the CA of the cluster (--ca-file, or QUORATE_CA_FILE); a server with a certificate of another CA needs \
             one of this (`quorate tls cert`) and SIGHUP"
        }
        Error::InvalidMessage(_) => "ask its HTTPS port, or write http:// for one without TLS",
        Error::AlertReceived(_) => {
            "show it a certificate that it takes (--client-cert and --client-key, made with `quorate tls cert --client`)"
        }
        _ => "the log of that server says more",
    }
}

/// Whether the other side ended the connection without a word.
#[must_use]
pub fn is_hang_up(error: &io::Error) -> bool {
    of_io(error).is_none()
        && matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
        )
}

/// The sentence for an operator.
#[must_use]
pub fn sentence(error: &Error) -> String {
    let what = what(error);
    if is_expired(error) { format!("{what}: {RENEWAL}") } else { what }
}

/// Whether a certificate is to be renewed: the other side's, or the own one that the other side has seen.
const fn is_expired(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. }
        ) | Error::AlertReceived(AlertDescription::CertificateExpired)
    )
}

/// What is wrong.
fn what(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::NoCertificatesPresented => {
            "it shows no certificate; only holders of a certificate of this cluster's CA are served here".to_owned()
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS (all servers and agents of a cluster have certificates, or none has)".to_owned()
        }
        Error::AlertReceived(alert) => of_alert(*alert),
        other => other.to_string(),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired => "its certificate has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("its certificate expired on {}", date(*not_after))
        }
        CertificateError::NotValidYet => {
            "its certificate is not valid yet: compare the clocks of the two machines".to_owned()
        }
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "its certificate is not valid before {}: compare the clocks of the two machines",
            date(*not_before)
        ),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate was not issued by the CA that this process trusts".to_owned()
        }
        CertificateError::NotValidForName => "its certificate is that of somebody else".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let quoted: Vec<_> = presented.iter().take(QUOTED_MAX).map(String::as_str).collect();
            format!(
                "its certificate is not that of {}; it has {}",
                expected.to_str(),
                quoted.join(", ")
            )
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not meant for this (extended key usage)".to_owned()
        }
        CertificateError::Other(error) => format!("its certificate is refused: {error}"),
        other => format!("its certificate is refused: {other}"),
    }
}

fn of_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateExpired => {
            "it says that this process's certificate has expired".to_owned()
        }
        AlertDescription::CertificateRequired => {
            "it asks for a certificate, and this process has none".to_owned()
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "it says that this process's certificate was not issued by the CA that it trusts"
                .to_owned()
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::AccessDenied => {
            "it refuses this process's certificate, and says why in its own log".to_owned()
        }
        other => format!("it ended the handshake ({other:?})"),
    }
}

/// A moment of a certificate, such as `2027-01-31 12:00:00 UTC`.
#[must_use]
pub fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let at = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    format!("{} UTC", at.strftime("%Y-%m-%d %H:%M:%S"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_expired_certificate_is_told_with_its_date_and_what_to_do() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let error = CertificateError::ExpiredContext { time: at(9), not_after: at(86_399) };
        let text = sentence(&Error::InvalidCertificate(error.clone()));
        assert!(text.contains("expired on 1970-01-01 23:59:59 UTC"), "{text}");
        assert!(text.contains("`quorate tls cert`") && text.contains("SIGHUP"), "{text}");
        let wrap = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let wrapped_again = wrap(Error::InvalidCertificate(error.clone()));
        let wrapped = wrap(Error::InvalidCertificate(error));
        assert_eq!(of_io(&wrapped), Some(text.clone()));
        assert_eq!(of_any(&io::Error::other(wrapped)), Some(text), "as a connector wraps it");
        assert!(at_start(RENEWAL).ends_with("the old one, and start it again"));
        let asked = of_request(&io::Error::other(wrapped_again)).unwrap();
        assert_eq!(
            asked,
            ("its certificate expired on 1970-01-01 23:59:59 UTC".to_owned(), RENEWAL)
        );
        assert_eq!(date(at(u64::MAX)), "9999-12-30 22:00:00 UTC");
    }

    #[test]
    fn who_asked_a_server_is_told_which_side_is_to_be_mended() {
        let told = |error: Error| of_request(&error).unwrap();
        let (what, remedy) = told(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        assert!(what.contains("not issued by the CA") && remedy.contains("--ca-file"), "{remedy}");
        let (_, remedy) = told(Error::InvalidCertificate(CertificateError::NotValidForName));
        assert!(remedy.contains("--host") && remedy.contains("SIGHUP"), "{remedy}");
        let (_, remedy) = told(Error::AlertReceived(AlertDescription::CertificateRequired));
        assert!(remedy.contains("--client-cert"), "{remedy}");
        assert_eq!(of_request(&io::Error::other("no route to host")), None);
    }

    #[test]
    fn who_hangs_up_has_not_failed() {
        assert!(is_hang_up(&io::Error::from(io::ErrorKind::UnexpectedEof)));
        let refused = io::Error::new(io::ErrorKind::InvalidData, Error::NoCertificatesPresented);
        assert!(!is_hang_up(&refused));
    }
}
