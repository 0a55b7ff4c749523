//! What is sent when a request was answered.

use axum::body::Body;
use axum::http::header::{
    AGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use quorate_storage::Index;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::node::Contact;

/// The type of texts, errors included.
pub(super) const TEXT_UTF8: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A text that grows takes twice as much room each time: a long one gives back what is more than this.
const SPARE_BYTES_MAX: usize = 64 * 1024;

/// The index that a blocking query hands back.
pub(super) const INDEX: HeaderName = HeaderName::from_static("x-consul-index");
/// How far this node had applied the log: what `?min-index=` of a later request can name, at any node.
pub(super) const APPLIED_INDEX: HeaderName = HeaderName::from_static("x-quorate-index");
const KNOWN_LEADER: HeaderName = HeaderName::from_static("x-consul-knownleader");
const LAST_CONTACT: HeaderName = HeaderName::from_static("x-consul-lastcontact");
const EFFECTIVE_CONSISTENCY: HeaderName = HeaderName::from_static("x-consul-effective-consistency");
const CACHE: HeaderName = HeaderName::from_static("x-cache");
const QUERY_BACKEND: HeaderName = HeaderName::from_static("x-consul-query-backend");
const FILTERED_BY_ACLS: HeaderName = HeaderName::from_static("x-consul-results-filtered-by-acls");

/// Whether an answer to `?cached` is a cached one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CacheUse {
    /// It comes from this server's state, and nobody was asked whether that is the newest.
    Hit,
    /// It is as fresh as any answer.
    Miss,
}

/// How JSON is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Without blanks and newlines.
    Compact,
    /// `?pretty`: indented by four blanks, with a newline at the end.
    Pretty,
}

/// A status, headers and a body.
#[derive(Debug)]
pub(super) struct Reply(Response);

impl Reply {
    /// 200 without a body.
    pub(super) fn empty() -> Self {
        Self(Response::new(Body::empty()))
    }

    /// A response that was made elsewhere.
    pub(super) const fn of(response: Response) -> Self {
        Self(response)
    }

    /// A value as JSON.
    pub(super) fn json<T: Serialize + ?Sized>(
        layout: Layout,
        value: &T,
    ) -> serde_json::Result<Self> {
        Ok(Self::bytes(to_json(layout, value)?.into(), JSON))
    }

    /// A text.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::bytes(text.into().into(), TEXT_UTF8)
    }

    /// Bytes that a client stored, sent so that no browser takes them for a page of ours.
    pub(super) fn raw(value: Bytes) -> Self {
        Self::bytes(value, HeaderValue::from_static("text/plain"))
            .with(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
            .with(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"))
    }

    /// Bytes of a type.
    pub(super) fn bytes(body: Bytes, content_type: HeaderValue) -> Self {
        Self(Response::new(Body::from(body))).with(CONTENT_TYPE, content_type)
    }

    /// A body that is made while it is sent.
    pub(super) fn stream(body: Body, content_type: HeaderValue) -> Self {
        Self(Response::new(body)).with(CONTENT_TYPE, content_type)
    }

    /// The same with a body made of its own.
    pub(super) fn map_body(self, body: impl FnOnce(Body) -> Body) -> Self {
        Self(self.0.map(body))
    }

    /// 404 without a body: nothing is there.
    pub(super) fn nothing() -> Self {
        Self::empty().status(StatusCode::NOT_FOUND)
    }

    /// The same with another status.
    pub(super) fn status(mut self, status: StatusCode) -> Self {
        *self.0.status_mut() = status;
        self
    }

    /// The same with one more header.
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers_mut().insert(name, value);
        self
    }

    /// The same with the headers of a read. Clients insist on all of them, on a 404 too.
    pub(super) fn with_read_headers(
        self,
        index: Index,
        contact: Contact,
        effective: &'static str,
    ) -> Self {
        self.with(INDEX, HeaderValue::from(index.0.max(1)))
            .with_contact(contact)
            .with(EFFECTIVE_CONSISTENCY, HeaderValue::from_static(effective))
            .with(QUERY_BACKEND, HeaderValue::from_static("blocking-query"))
            .with_filtered()
    }

    /// The same, saying that nothing was left out, unless it says that something was.
    fn with_filtered(mut self) -> Self {
        let headers = self.0.headers_mut();
        headers.entry(FILTERED_BY_ACLS).or_insert(HeaderValue::from_static("false"));
        self
    }

    /// The same, saying that the caller may not see all there is.
    pub(super) fn filtered_if(self, is_filtered: bool) -> Self {
        match is_filtered {
            true => self.with(FILTERED_BY_ACLS, HeaderValue::from_static("true")),
            false => self,
        }
    }

    /// The same with the headers that say how fresh it is. Go's client reads the first only if the
    /// second is there.
    pub(super) fn with_contact(self, contact: Contact) -> Self {
        let known = if contact.known_leader { "true" } else { "false" };
        self.with(LAST_CONTACT, HeaderValue::from(contact.last_contact.0))
            .with(KNOWN_LEADER, HeaderValue::from_static(known))
    }

    /// The same with the headers of `?cached`. The age is in whole seconds.
    pub(super) fn with_cache(self, cache: Option<CacheUse>, contact: Contact) -> Self {
        match cache {
            None => self,
            Some(CacheUse::Miss) => {
                self.with(CACHE, HeaderValue::from_static("MISS")).with(AGE, HeaderValue::from(0))
            }
            Some(CacheUse::Hit) => {
                let age = contact.last_contact.0 / 1_000;
                self.with(CACHE, HeaderValue::from_static("HIT")).with(AGE, HeaderValue::from(age))
            }
        }
    }

    pub(super) fn into_response(self) -> Response {
        self.0
    }
}

/// Renders JSON as Go does.
fn to_json<T: Serialize + ?Sized>(layout: Layout, value: &T) -> serde_json::Result<Vec<u8>> {
    let plain = match layout {
        Layout::Compact => serde_json::to_vec(value)?,
        Layout::Pretty => {
            let mut text = Vec::new();
            let formatter = PrettyFormatter::with_indent(b"    ");
            value.serialize(&mut Serializer::with_formatter(&mut text, formatter))?;
            text.push(b'\n');
            text
        }
    };
    let mut text = escape_for_html(plain);
    if text.capacity() - text.len() > SPARE_BYTES_MAX {
        text.shrink_to_fit();
    }
    Ok(text)
}

/// Escapes what could end a script element or a line of JavaScript. These characters occur in JSON
/// only inside strings, so they can be found without parsing.
fn escape_for_html(text: Vec<u8>) -> Vec<u8> {
    const LINE_SEPARATOR: &[u8] = "\u{2028}".as_bytes();
    const PARAGRAPH_SEPARATOR: &[u8] = "\u{2029}".as_bytes();
    let special = |byte: &u8| matches!(byte, b'<' | b'>' | b'&' | 0xE2);
    if !text.iter().any(special) {
        return text;
    }
    let mut escaped = Vec::with_capacity(text.len() + 64);
    let mut rest = text.as_slice();
    while let Some(at) = rest.iter().position(special) {
        escaped.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let (code, length): (&[u8], usize) = match rest {
            [b'<', ..] => (b"\\u003c", 1),
            [b'>', ..] => (b"\\u003e", 1),
            [b'&', ..] => (b"\\u0026", 1),
            rest if rest.starts_with(LINE_SEPARATOR) => (b"\\u2028", 3),
            rest if rest.starts_with(PARAGRAPH_SEPARATOR) => (b"\\u2029", 3),
            rest => (&rest[..1], 1),
        };
        escaped.extend_from_slice(code);
        rest = &rest[length..];
    }
    escaped.extend_from_slice(rest);
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn render(layout: Layout, value: &Value) -> String {
        String::from_utf8(to_json(layout, value).unwrap()).unwrap()
    }

    #[test]
    fn pretty_json_is_laid_out_as_by_go() {
        let value = json!([{ "a": 1, "b": [], "c": {} }]);
        let text = "[\n    {\n        \"a\": 1,\n        \"b\": [],\n        \"c\": {}\n    }\n]\n";
        assert_eq!(render(Layout::Pretty, &value), text);
        assert_eq!(render(Layout::Compact, &value), "[{\"a\":1,\"b\":[],\"c\":{}}]");
        assert_eq!(render(Layout::Pretty, &Value::Null), "null\n");
    }

    #[test]
    fn what_could_leave_a_script_is_escaped() {
        let value = json!("<b>&\u{2028}\u{2029}\u{20ac}");
        let text = "\"\\u003cb\\u003e\\u0026\\u2028\\u2029\u{20ac}\"";
        assert_eq!(render(Layout::Compact, &value), text);
    }

    #[test]
    fn a_cached_answer_says_how_old_it_is() {
        let contact = Contact { known_leader: false, last_contact: quorate_storage::Millis(2_900) };
        let shown = |cache| {
            let response = Reply::empty().with_cache(cache, contact).into_response();
            let text =
                |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            (text(CACHE), text(AGE))
        };
        let some = |cache: &str, age: &str| (Some(cache.to_owned()), Some(age.to_owned()));
        assert_eq!(shown(Some(CacheUse::Hit)), some("HIT", "2"));
        assert_eq!(shown(Some(CacheUse::Miss)), some("MISS", "0"));
        assert_eq!(shown(None), (None, None));
    }

    #[test]
    fn an_index_is_never_zero() {
        let contact = Contact { known_leader: false, last_contact: quorate_storage::Millis(1500) };
        let reply = Reply::nothing().with_read_headers(Index(0), contact, "stale").into_response();
        assert_eq!(reply.headers()[INDEX], "1");
        assert_eq!(reply.headers()[LAST_CONTACT], "1500");
        assert_eq!(reply.headers()[KNOWN_LEADER], "false");
        assert!(!reply.headers().contains_key(CONTENT_TYPE));
    }

    proptest! {
        #[test]
        fn escaping_does_not_change_what_is_said(text in "\\PC*") {
            let value = Value::String(text);
            prop_assert_eq!(
                serde_json::from_str::<Value>(&render(Layout::Compact, &value)).unwrap(),
                value
            );
        }
    }
}
