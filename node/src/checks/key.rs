//! The key by which servers know worker processes.
//!
//! Results decide which services are healthy, so not everybody may send them. Whoever knows the key proves it for
//! each request by an HMAC-SHA-256 over what the request is and its body; the key itself is never sent. A request that
//! somebody has overheard and sends again has no effect: attempts and results are numbered.

use std::fmt::{self, Debug};
use std::io;
use std::path::Path;
use std::sync::Arc;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::host::hexadecimal::hexadecimal;

/// The header with the proof.
pub(crate) const PROOF_HEADER: &str = "x-quorate-worker-proof";
/// A shorter key can be guessed.
const KEY_BYTES_MIN: usize = 16;

/// What a proof is for, so that one request's is not another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To open a worker's stream.
    Open,
    /// To send results.
    Results,
}

impl Purpose {
    const fn word(self) -> &'static [u8] {
        match self {
            Self::Open => b"quorate worker open\n",
            Self::Results => b"quorate worker results\n",
        }
    }
}

/// The key. Clones share it.
#[derive(Clone, PartialEq, Eq)]
pub struct WorkerKey(Arc<[u8]>);

impl Debug for WorkerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkerKey(..)")
    }
}

impl WorkerKey {
    /// Reads a key file: the whole file without the white space around it.
    ///
    /// # Errors
    /// The file cannot be read, or holds less than 16 bytes.
    pub fn read(path: &Path) -> io::Result<Self> {
        Self::new(std::fs::read(path)?.trim_ascii())
    }

    fn new(bytes: &[u8]) -> io::Result<Self> {
        if bytes.len() < KEY_BYTES_MIN {
            let text =
                format!("a key of {} bytes, at least {KEY_BYTES_MIN} are needed", bytes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Self(bytes.into()))
    }

    /// Proves that a request with this body is from somebody who knows the key.
    pub(crate) fn prove(&self, purpose: Purpose, body: &[u8]) -> String {
        hexadecimal(&self.mac(purpose, body).finalize().into_bytes())
    }

    /// Whether a proof is right, in a time that does not depend on how far it is.
    pub(crate) fn is_proved(&self, purpose: Purpose, body: &[u8], proof: &str) -> bool {
        bytes_of(proof).is_some_and(|proof| self.mac(purpose, body).verify_slice(&proof).is_ok())
    }

    fn mac(&self, purpose: Purpose, body: &[u8]) -> Hmac<Sha256> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.0);
        mac.expect("HMAC takes a key of any length").chain_update(purpose.word()).chain_update(body)
    }
}

/// The bytes that hexadecimal digits stand for.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(
        digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_for_one_purpose_and_body_under_one_key() {
        let key = WorkerKey::new(b"0123456789abcdef").unwrap();
        let proof = key.prove(Purpose::Open, b"{}");
        assert!(key.is_proved(Purpose::Open, b"{}", &proof));
        assert!(!key.is_proved(Purpose::Results, b"{}", &proof));
        assert!(!key.is_proved(Purpose::Open, b"[]", &proof));
        let other = WorkerKey::new(b"0123456789abcdeg").unwrap();
        assert!(!other.is_proved(Purpose::Open, b"{}", &proof));
        for nonsense in ["", "0", "zz", &proof[2..], "\u{e9}\u{e9}"] {
            assert!(!key.is_proved(Purpose::Open, b"{}", nonsense), "{nonsense}");
        }
    }

    #[test]
    fn a_short_key_is_refused_and_no_key_is_shown() {
        assert!(WorkerKey::new(b"short").is_err());
        assert_eq!(format!("{:?}", WorkerKey::new(&[7; 16]).unwrap()), "WorkerKey(..)");
    }
}
