//! Metadata of nodes and services.

use quorate_storage::limits::{META_KEY_BYTES_MAX, META_PAIRS_MAX, META_VALUE_BYTES_MAX};
use quorate_storage::record::TextMap;

/// Keys that begin so are Consul's own.
const META_KEY_RESERVED: &str = "consul-";

/// Validates metadata.
pub(crate) fn check_meta(meta: &TextMap) -> Result<(), String> {
    if meta.len() > META_PAIRS_MAX {
        return Err(format!(
            "Node metadata cannot contain more than {META_PAIRS_MAX} key/value pairs"
        ));
    }
    for (key, value) in meta {
        if let Some(fault) = meta_fault(key, value) {
            return Err(format!("Couldn't load metadata pair ('{key}', '{value}'): {fault}"));
        }
    }
    Ok(())
}

fn meta_fault(key: &str, value: &str) -> Option<String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if key.is_empty() {
        Some("Key cannot be blank".to_owned())
    } else if !key.bytes().all(known) {
        Some("Key contains invalid characters".to_owned())
    } else if key.starts_with(META_KEY_RESERVED) {
        Some(format!("Key prefix '{META_KEY_RESERVED}' is reserved for internal use"))
    } else if key.len() > META_KEY_BYTES_MAX {
        Some(format!("Key is too long (limit: {META_KEY_BYTES_MAX} characters)"))
    } else if value.len() > META_VALUE_BYTES_MAX {
        Some(format!("Value is too long (limit: {META_VALUE_BYTES_MAX} characters)"))
    } else {
        None
    }
}
