//! Bytes as text.

/// Two lower-case digits for each byte.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_written_in_lower_case_hexadecimal() {
        assert_eq!(hexadecimal(&[0x00, 0xaf, 0x10]), "00af10");
    }
}
