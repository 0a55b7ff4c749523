//! Members of a check's definition that came after its encoding was fixed.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Millis;

/// The last member of a [`CheckDefinition`](super::CheckDefinition), and those that came after it.
///
/// Definitions lie within commands and rows, so no member can be added behind them. The last one was an
/// optional truth value: its encoding begins with 0 or 1. What begins with 2 has the next later member as well,
/// what begins with 3 has all. Each is written only where one of its members is set, so definitions without them
/// look as they always did, and only from the level that knows them
/// ([`HEARTBEAT_LEVEL`](crate::state::HEARTBEAT_LEVEL), [`WORKERS_LEVEL`](crate::state::WORKERS_LEVEL)) on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaterMembers {
    /// Whether the HTTP/2 ping uses TLS; `None`: the client did not say.
    pub h2ping_use_tls: Option<bool>,
    /// A TTL check warns after so long without a heartbeat; zero: it does not warn. Below the TTL.
    pub warn_after: Millis,
    /// How many workers look at the target of a check that is run; 0: one.
    pub observers: u8,
    /// The network whose workers run it; empty: any without one.
    pub network: Arc<str>,
}

impl LaterMembers {
    /// Whether it says something of who runs the check.
    #[must_use]
    pub fn names_workers(&self) -> bool {
        self.observers > 0 || !self.network.is_empty()
    }
}

#[derive(Serialize, Deserialize)]
enum Encoded {
    Nothing,
    UseTls(bool),
    Warns { h2ping_use_tls: Option<bool>, warn_after: Millis },
    All { h2ping_use_tls: Option<bool>, warn_after: Millis, observers: u8, network: Arc<str> },
}

impl Serialize for LaterMembers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { h2ping_use_tls, warn_after, observers, ref network } = *self;
        let encoded = match h2ping_use_tls {
            _ if self.names_workers() => {
                Encoded::All { h2ping_use_tls, warn_after, observers, network: network.clone() }
            }
            _ if !warn_after.is_zero() => Encoded::Warns { h2ping_use_tls, warn_after },
            None => Encoded::Nothing,
            Some(use_tls) => Encoded::UseTls(use_tls),
        };
        encoded.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LaterMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Encoded::deserialize(deserializer)? {
            Encoded::Nothing => Self::default(),
            Encoded::UseTls(use_tls) => Self { h2ping_use_tls: Some(use_tls), ..Self::default() },
            Encoded::Warns { h2ping_use_tls, warn_after } => {
                Self { h2ping_use_tls, warn_after, ..Self::default() }
            }
            Encoded::All { h2ping_use_tls, warn_after, observers, network } => {
                Self { h2ping_use_tls, warn_after, observers, network }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_later_members_the_encoding_is_that_of_the_last_one_alone() {
        for h2ping_use_tls in [None, Some(false), Some(true)] {
            let members = LaterMembers { h2ping_use_tls, ..LaterMembers::default() };
            let encoded = postcard::to_stdvec(&members).unwrap();
            assert_eq!(encoded, postcard::to_stdvec(&h2ping_use_tls).unwrap());
            assert_eq!(postcard::from_bytes::<LaterMembers>(&encoded).unwrap(), members);
            let members = LaterMembers { warn_after: Millis(300), ..members };
            let encoded = postcard::to_stdvec(&members).unwrap();
            assert_eq!(encoded[0], 2);
            assert_eq!(postcard::from_bytes::<LaterMembers>(&encoded).unwrap(), members);
            let members = LaterMembers { observers: 3, network: "dmz".into(), ..members };
            let encoded = postcard::to_stdvec(&members).unwrap();
            assert_eq!(encoded[0], 3);
            assert_eq!(postcard::from_bytes::<LaterMembers>(&encoded).unwrap(), members);
        }
    }
}
