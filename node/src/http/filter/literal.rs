//! Go's literals: quoted strings, numbers and truth values.

/// What stands between double quotes, without its escapes; `None` if Go would not take it.
pub(super) fn unquote(text: &str) -> Option<String> {
    let mut letters = text.chars();
    let mut plain = String::with_capacity(text.len());
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => plain.push(escaped(&mut letters)?),
            '\n' => return None,
            letter => plain.push(letter),
        }
    }
    Some(plain)
}

/// What follows a backslash.
fn escaped(letters: &mut std::str::Chars<'_>) -> Option<char> {
    Some(match letters.next()? {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '\\' => '\\',
        '"' => '"',
        // These two name bytes. Those above ASCII could end as invalid text, which no field has.
        'x' => numbered(letters, 0, 2, 16).filter(char::is_ascii)?,
        digit @ '0'..='7' => numbered(letters, digit.to_digit(8)?, 2, 8).filter(char::is_ascii)?,
        'u' => numbered(letters, 0, 4, 16)?,
        'U' => numbered(letters, 0, 8, 16)?,
        _ => return None,
    })
}

/// The character whose number is `first` followed by `count` more digits.
fn numbered(
    letters: &mut std::str::Chars<'_>,
    first: u32,
    count: usize,
    radix: u32,
) -> Option<char> {
    let number = (0..count).try_fold(first, |number, _| {
        let digit = letters.next()?.to_digit(radix)?;
        number.checked_mul(radix)?.checked_add(digit)
    });
    char::from_u32(number?)
}

/// A whole number: decimal, or with a prefix for another base. The error is in Go's words.
pub(super) fn integer(text: &str) -> Result<i64, String> {
    let fault = |fault: &str| format!("strconv.ParseInt: parsing {text:?}: {fault}");
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = if text.starts_with('-') { "-" } else { "" };
    let (radix, digits) = radix(unsigned);
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(fault("invalid syntax"));
    }
    // With its sign, because the smallest number has no positive counterpart.
    i64::from_str_radix(&format!("{sign}{digits}"), radix).map_err(|_| fault("value out of range"))
}

fn radix(text: &str) -> (u32, &str) {
    let prefixes = [("0x", 16), ("0X", 16), ("0b", 2), ("0B", 2), ("0o", 8), ("0O", 8)];
    for (prefix, radix) in prefixes {
        if let Some(digits) = text.strip_prefix(prefix) {
            return (radix, digits);
        }
    }
    match text.strip_prefix('0') {
        Some(digits) if !digits.is_empty() => (8, digits),
        _ => (10, text),
    }
}

/// A truth value. The error is in Go's words.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_lose_their_escapes_as_in_go() {
        for (text, plain) in [
            ("", Some("")),
            ("a b", Some("a b")),
            (r"a\tb\\\n", Some("a\tb\\\n")),
            (r#"\""#, Some("\"")),
            (r"\x41\101\u00e9\U0001F600", Some("AA\u{e9}\u{1f600}")),
            (r"\xff", None),
            (r"\777", None),
            (r"\ud800", None),
            (r"\UFFFFFFFF", None),
            (r"\u12", None),
            (r"\'", None),
            (r"\d", None),
            ("\\", None),
            ("a\nb", None),
        ] {
            assert_eq!(unquote(text).as_deref(), plain, "{text}");
        }
    }

    #[test]
    fn integers_are_read_in_the_bases_of_go() {
        for (text, number) in [
            ("0", 0),
            ("80", 80),
            ("+5", 5),
            ("-9223372036854775808", i64::MIN),
            ("0x1F", 31),
            ("-0b11", -3),
            ("0o17", 15),
            ("017", 15),
        ] {
            assert_eq!(integer(text), Ok(number), "{text}");
        }
        for (text, fault) in [
            ("", "invalid syntax"),
            ("-", "invalid syntax"),
            ("+-1", "invalid syntax"),
            ("abc", "invalid syntax"),
            ("1.5", "invalid syntax"),
            ("08", "invalid syntax"),
            ("0x", "invalid syntax"),
            ("\u{661}", "invalid syntax"),
            ("9223372036854775808", "value out of range"),
        ] {
            let expected = format!("strconv.ParseInt: parsing {text:?}: {fault}");
            assert_eq!(integer(text), Err(expected), "{text}");
        }
    }
}
