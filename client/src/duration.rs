//! Go's durations: `10s`, `1m30s`, `300ms`, `9.98s`.

use std::fmt::Write as _;

use thiserror::Error;

/// Nanoseconds in a second.
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Why a text is not a duration. The words are Go's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DurationError {
    /// It does not follow the grammar, or overflows.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number has no unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A number has a unit that does not exist.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// Reads a Go duration (`-1.5h`, `1m30s`, `300ms`, `0`) as nanoseconds.
///
/// # Errors
/// As Go's `time.ParseDuration`: no unit, an unknown unit, no number, or more than about 292 years.
pub fn parse(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let (nanos, behind) = component(text, rest)?;
        total = total.checked_add(nanos).ok_or_else(invalid)?;
        rest = behind;
    }
    Ok(if negative { -total } else { total })
}

/// Reads one number with its unit; returns nanoseconds and what follows.
fn component<'a>(text: &str, rest: &'a str) -> Result<(i64, &'a str), DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (whole, behind) = digits(rest);
    let (fraction, behind) = match behind.strip_prefix('.') {
        Some(behind) => digits(behind),
        None => ("", behind),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(invalid());
    }
    let end = behind.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(behind.len());
    let (name, behind) = behind.split_at(end);
    let unit = unit_nanos(name).ok_or_else(|| match name {
        "" => DurationError::MissingUnit(text.to_owned()),
        _ => DurationError::UnknownUnit { unit: name.to_owned(), text: text.to_owned() },
    })?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
    let nanos = whole
        .checked_mul(unit)
        .and_then(|nanos| nanos.checked_add(fraction_nanos(fraction, unit)))
        .and_then(|nanos| i64::try_from(nanos).ok())
        .ok_or_else(invalid)?;
    Ok((nanos, behind))
}

/// Splits off the leading ASCII digits.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// The part of a unit that the digits behind a decimal point stand for; what is less than a
/// nanosecond is dropped.
fn fraction_nanos(digits: &str, unit: u64) -> u64 {
    // The longest unit has 13 digits of nanoseconds, so further digits change nothing.
    const DIGITS_THAT_COUNT: usize = 18;
    let (mut value, mut scale) = (0_u128, 1_u128);
    for digit in digits.bytes().take(DIGITS_THAT_COUNT) {
        value = value * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    u64::try_from(value * u128::from(unit) / scale).unwrap_or(0)
}

fn unit_nanos(name: &str) -> Option<u64> {
    Some(match name {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "h" => 3_600 * NANOS_PER_SECOND,
        _ => return None,
    })
}

/// Writes nanoseconds as Go does: `0s`, `1.5ms`, `1m0s`, `1h2m3s`.
#[must_use]
pub fn format(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let size = nanos.unsigned_abs();
    match size {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{size}ns"),
        1_000..1_000_000 => format!("{sign}{}\u{b5}s", decimal(size, 1_000)),
        1_000_000..NANOS_PER_SECOND => format!("{sign}{}ms", decimal(size, 1_000_000)),
        _ => format!("{sign}{}", clock(size)),
    }
}

/// Writes a second or more as hours, minutes and seconds.
fn clock(nanos: u64) -> String {
    let (minutes, rest) = (nanos / (60 * NANOS_PER_SECOND), nanos % (60 * NANOS_PER_SECOND));
    let mut text = String::new();
    // Writing to a String cannot fail.
    if minutes >= 60 {
        let _ = write!(text, "{}h", minutes / 60);
    }
    if minutes > 0 {
        let _ = write!(text, "{}m", minutes % 60);
    }
    let _ = write!(text, "{}s", decimal(rest, NANOS_PER_SECOND));
    text
}

/// Writes `value / unit` as a decimal without trailing zeros.
fn decimal(value: u64, unit: u64) -> String {
    let digits = unit.ilog10() as usize;
    let fraction = format!("{:0digits$}", value % unit);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}", value / unit)
}

/// Durations as Go texts; reading takes nanoseconds too.
pub(crate) mod go_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{format, parse};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    pub(crate) fn serialize<S: Serializer>(nanos: &i64, writer: S) -> Result<S::Ok, S::Error> {
        writer.serialize_str(&format(*nanos))
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Nanos(i64),
        Text(String),
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(reader: D) -> Result<i64, D::Error> {
        match Either::deserialize(reader)? {
            Either::Nanos(nanos) => Ok(nanos),
            Either::Text(text) if text.is_empty() => Ok(0),
            Either::Text(text) => parse(&text).map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_that_clients_send_are_read() {
        for (text, nanos) in [
            ("10s", 10 * 1_000_000_000),
            ("1m30s", 90 * 1_000_000_000),
            ("300ms", 300_000_000),
            ("9.98s", 9_980_000_000),
            ("15.0s", 15_000_000_000),
            ("60000ms", 60_000_000_000),
            ("0.8s", 800_000_000),
            ("1h2m", 3_720_000_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("-1.5h", -5_400_000_000_000),
            ("0", 0),
            ("+5us", 5_000),
            ("0.3333333333333333333h", 1_200_000_000_000 - 1),
        ] {
            assert_eq!(parse(text), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_durations_are_refused_in_the_words_of_go() {
        for (text, words) in [
            ("", "time: invalid duration \"\""),
            ("10", "time: missing unit in duration \"10\""),
            ("1sec", "time: unknown unit \"sec\" in duration \"1sec\""),
            ("abc", "time: invalid duration \"abc\""),
            (".s", "time: invalid duration \".s\""),
            ("-", "time: invalid duration \"-\""),
            ("9999999999h", "time: invalid duration \"9999999999h\""),
            ("10 s", "time: unknown unit \" s\" in duration \"10 s\""),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5\u{b5}s"),
            (300_000_000, "300ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_723_000_000_001, "1h2m3.000000001s"),
            (-10_000_000_000, "-10s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(format(nanos), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_back(nanos in i64::MIN + 1..i64::MAX) {
            proptest::prop_assert_eq!(parse(&format(nanos)), Ok(nanos));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
