//! Finds whole requests in the bytes of a connection, so that a copy of one can be delivered again.

use bytes::{Buf as _, Bytes, BytesMut};
use httparse::{EMPTY_HEADER, Header, Request, Status};

/// The longest request that is taken, head and body; longer ones are skipped.
const REQUEST_BYTES_MAX: usize = 256 << 10;
/// The longest head; servers send a few short headers to each other.
const HEAD_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 32;

/// Finds the HTTP/1.1 requests in what one end of a connection sends.
#[derive(Debug, Default)]
pub(super) struct Requests {
    buffer: BytesMut,
    /// What is left of a request that is too long.
    skipped: usize,
    /// Since something came whose end cannot be told (a snapshot is streamed, without a length), nothing
    /// more is taken from this connection.
    is_lost: bool,
}

/// What the buffer begins with.
enum Front {
    /// A request of this length, of which perhaps not all has come.
    Request(usize),
    /// Not enough bytes yet.
    Part,
    /// Something else.
    Strange,
}

impl Requests {
    /// Takes note of more bytes, and returns the requests that end in them.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Bytes> {
        let mut whole = Vec::new();
        if self.is_lost {
            return whole;
        }
        self.buffer.extend_from_slice(bytes);
        loop {
            let passed = self.skipped.min(self.buffer.len());
            self.buffer.advance(passed);
            self.skipped -= passed;
            match front(&self.buffer) {
                Front::Request(length) if length > REQUEST_BYTES_MAX => self.skipped = length,
                Front::Request(length) if length <= self.buffer.len() => {
                    whole.push(self.buffer.split_to(length).freeze());
                }
                Front::Request(_) | Front::Part => return whole,
                Front::Strange => {
                    self.is_lost = true;
                    self.buffer = BytesMut::new();
                    return whole;
                }
            }
        }
    }
}

fn front(buffer: &[u8]) -> Front {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    match request.parse(buffer) {
        Ok(Status::Complete(head)) => match body_length(request.headers) {
            Some(body) => Front::Request(head.saturating_add(body)),
            None => Front::Strange,
        },
        Ok(Status::Partial) if buffer.len() <= HEAD_BYTES_MAX => Front::Part,
        Ok(Status::Partial) | Err(_) => Front::Strange,
    }
}

/// The length of the body; none if it is not said beforehand.
fn body_length(headers: &[Header<'_>]) -> Option<usize> {
    let named = |name: &str| headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    if named("transfer-encoding").is_some() {
        return None;
    }
    let Some(length) = named("content-length") else { return Some(0) };
    std::str::from_utf8(length.value).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &[u8]) -> Vec<u8> {
        let head =
            format!("POST /rpc HTTP/1.1\r\nhost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    #[test]
    fn requests_are_found_wherever_the_bytes_are_divided() {
        let (first, second) = (request(b"one"), request(b""));
        let both = [first.clone(), second.clone()].concat();
        for at in 0..=both.len() {
            let mut requests = Requests::default();
            let (head, tail) = both.split_at(at);
            let found = [requests.feed(head), requests.feed(tail)].concat();
            assert_eq!(found, [first.clone(), second.clone()], "divided at {at}");
        }
    }

    #[test]
    fn one_that_is_too_long_is_skipped_and_the_next_is_found() {
        let long = request(&vec![b'x'; REQUEST_BYTES_MAX]);
        let next = request(b"next");
        let mut requests = Requests::default();
        let found: Vec<Bytes> = [long, next.clone()]
            .concat()
            .chunks(1_000)
            .flat_map(|part| requests.feed(part))
            .collect();
        assert_eq!(found, [next]);
    }

    #[test]
    fn nothing_is_taken_after_what_cannot_be_told_apart() {
        for strange in [
            &b"POST /snapshot HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"[..],
            b"POST /rpc HTTP/1.1\r\ncontent-length: many\r\n\r\n",
            b"\x16\x03\x01 no HTTP at all\r\n\r\n",
            &[b'x'; HEAD_BYTES_MAX + 1],
        ] {
            let mut requests = Requests::default();
            assert!(requests.feed(strange).is_empty());
            assert!(requests.feed(&request(b"later")).is_empty());
        }
    }
}
