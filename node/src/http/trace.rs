//! The trace that a client says its request is part of: the header `traceparent` of [W3C Trace Context].
//!
//! The log lines of such a request are inside a span that names the trace, so that they are found together with what
//! other programs logged of it. A request without the header, or with one that the specification calls invalid, has no
//! span, which costs one look at its headers.
//!
//! [W3C Trace Context]: https://www.w3.org/TR/trace-context/

use axum::http::HeaderMap;
use tracing::Span;

const HEADER: &str = "traceparent";
/// Length of a header of version 00; later versions may go on behind another dash.
const LENGTH: usize = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".len();
/// No version: it would be a mistake of whoever sends it.
const NO_VERSION: &str = "ff";

/// A trace, and the part of it that made a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trace<'a> {
    id: &'a str,
    parent: &'a str,
}

/// What the log lines of a request with these headers belong to.
pub(crate) fn span(headers: &HeaderMap) -> Span {
    match trace(headers) {
        // Of the highest level, so that it is there at whatever level lines are logged.
        Some(Trace { id, parent }) => {
            tracing::error_span!("request", trace_id = id, parent_id = parent)
        }
        None => Span::none(),
    }
}

/// The trace, if exactly one is named and validly so.
fn trace(headers: &HeaderMap) -> Option<Trace<'_>> {
    let mut values = headers.get_all(HEADER).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    parse(value.to_str().ok()?)
}

fn parse(text: &str) -> Option<Trace<'_>> {
    let (known, rest) = text.split_at_checked(LENGTH)?;
    let mut fields = known.split('-');
    let mut hexadecimal = |length| fields.next().filter(|field| is_hexadecimal(field, length));
    let version = hexadecimal(2)?;
    let (id, parent, _flags) = (hexadecimal(32)?, hexadecimal(16)?, hexadecimal(2)?);
    let may_end_so = rest.is_empty() || version != "00" && rest.starts_with('-');
    let is_valid = may_end_so && version != NO_VERSION && !is_zero(id) && !is_zero(parent);
    is_valid.then_some(Trace { id, parent })
}

fn is_hexadecimal(field: &str, length: usize) -> bool {
    field.len() == length && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_zero(field: &str) -> bool {
    field.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn a_valid_header_names_its_trace_also_in_a_later_version() {
        let named = Some(Trace { id: ID, parent: PARENT });
        for (version, end) in [("00", ""), ("01", ""), ("cc", "-what-comes"), ("fe", "-")] {
            assert_eq!(parse(&format!("{version}-{ID}-{PARENT}-01{end}")), named, "{version}{end}");
        }
    }

    #[test]
    fn an_invalid_header_is_ignored() {
        let zeros = "0".repeat(32);
        for text in [
            String::new(),
            format!("ff-{ID}-{PARENT}-01"),
            format!("00-{}-{PARENT}-01", ID.to_uppercase()),
            format!("00-{zeros}-{PARENT}-01"),
            format!("00-{ID}-{}-01", &zeros[..16]),
            format!("00-{ID}-{PARENT}-0"),
            format!("00-{ID}-{PARENT}-0g"),
            format!("00-{ID}-{PARENT}-01-"),
            format!("00-{ID}-{PARENT}-01-more"),
            format!("01-{ID}-{PARENT}-01more"),
            format!("00_{ID}_{PARENT}_01"),
            format!("0-0{ID}-{PARENT}-01"),
            format!("00-{ID}{PARENT}--01"),
        ] {
            assert_eq!(parse(&text), None, "{text}");
        }
    }

    #[test]
    fn two_headers_name_no_trace() {
        let value = HeaderValue::try_from(format!("00-{ID}-{PARENT}-01")).unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(trace(&headers), None);
        headers.append(HEADER, value.clone());
        assert!(trace(&headers).is_some());
        headers.append(HEADER, value);
        assert_eq!(trace(&headers), None);
    }

    proptest! {
        #[test]
        fn whatever_a_header_holds_is_read_without_a_panic(text in "\\PC*", flipped in 0..LENGTH) {
            let _ = parse(&text);
            let mut bytes = format!("00-{ID}-{PARENT}-01").into_bytes();
            bytes[flipped] ^= 0x11;
            let _ = parse(&String::from_utf8(bytes).unwrap());
        }
    }
}
