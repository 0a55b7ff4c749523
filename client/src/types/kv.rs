//! The key-value store.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One key, as `GET /v1/kv/:key` lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct KvPair {
    /// How often a session newly acquired the key.
    pub lock_index: u64,
    /// The key.
    pub key: String,
    /// A number of the client's.
    pub flags: u64,
    /// The value: base64 in JSON, `null` when empty.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub value: Vec<u8>,
    /// The session that holds the key; left out when nobody does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The index of the write that made the key.
    pub create_index: u64,
    /// The index of the last write; what `?cas=` compares.
    pub modify_index: u64,
}

pub(super) fn to_base64<S: Serializer>(value: &[u8], writer: S) -> Result<S::Ok, S::Error> {
    match value {
        [] => writer.serialize_none(),
        value => writer.serialize_str(&STANDARD.encode(value)),
    }
}

pub(super) fn from_base64<'de, D: Deserializer<'de>>(reader: D) -> Result<Vec<u8>, D::Error> {
    let text: Option<String> = Option::deserialize(reader)?;
    STANDARD.decode(text.unwrap_or_default()).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_has_the_members_and_nulls_of_consul() {
        let pair = KvPair {
            key: "a/b".to_owned(),
            value: b"hello".to_vec(),
            flags: u64::MAX,
            create_index: 2,
            modify_index: 3,
            ..KvPair::default()
        };
        let text = serde_json::to_string(&pair).unwrap();
        assert_eq!(
            text,
            r#"{"LockIndex":0,"Key":"a/b","Flags":18446744073709551615,"Value":"aGVsbG8=","CreateIndex":2,"ModifyIndex":3}"#
        );
        assert_eq!(serde_json::from_str::<KvPair>(&text).unwrap(), pair);
    }

    #[test]
    fn an_empty_value_is_null_and_a_holder_is_shown() {
        let pair = KvPair { session: Some("s".to_owned()), ..KvPair::default() };
        let text = serde_json::to_string(&pair).unwrap();
        assert!(text.contains(r#""Value":null,"Session":"s""#), "{text}");
        assert_eq!(serde_json::from_str::<KvPair>(&text).unwrap(), pair);
    }
}
