//! Requests and answers as bytes. The codec is hickory's; here is what a server makes of it: what it does not answer,
//! what is an error, and what is left out of an answer that would be too long.

use hickory_proto::ProtoError;
use hickory_proto::op::{
    Edns, Header, HeaderCounts, Message, MessageType, Metadata, OpCode, Query, ResponseCode,
};
use hickory_proto::rr::{DNSClass, Record, RecordType};
use hickory_proto::serialize::binary::{
    BinDecodable as _, BinDecoder, BinEncodable as _, BinEncoder, EncodedSize as _,
};

use super::zone::Found;

/// An answer over UDP to a client without EDNS (RFC 1035).
const PLAIN_UDP_BYTES: u16 = 512;
/// An answer over UDP to any client: what is more is fragmented by many networks several times over.
const UDP_BYTES_MAX: u16 = 4_096;
/// An answer over TCP.
const TCP_BYTES_MAX: u16 = u16::MAX;
/// Length of an OPT record without options.
const OPT_BYTES: u16 = 11;
/// Whoever asks for what has changed in a zone says here what it knows (RFC 1995).
const AUTHORITIES_MAX: u16 = 1;
/// A question may come with EDNS, and with a signature, which is not looked at.
const ADDITIONALS_MAX: u16 = 2;
/// The shortest records: the name is a pointer to the question's.
const SHORTEST_ADDRESS_BYTES: usize = 16;
/// An SRV record has a name that is not shortened.
const SHORTEST_SRV_BYTES: usize = 24;

/// What carries a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Answers are as long as the client says; it may ask again over TCP.
    Udp,
    /// Answers have 64 KiB.
    Tcp,
}

/// A message that was received.
#[derive(Debug)]
pub(super) enum Received {
    /// It is not answered.
    Ignored(&'static str),
    /// It is answered with an error.
    Faulty(Request, ResponseCode),
    /// It asks something.
    Asks(Request, Query),
}

/// What an answer repeats of a message.
#[derive(Debug)]
pub(super) struct Request {
    metadata: Metadata,
    query: Option<Query>,
    edns: Option<Edns>,
}

/// Reads a message.
pub(super) fn read(bytes: &[u8]) -> Received {
    let Ok(Header { metadata, counts }) = Header::read(&mut BinDecoder::new(bytes)) else {
        return Received::Ignored("short");
    };
    // An answer to an answer would be answered in turn.
    if metadata.message_type == MessageType::Response {
        return Received::Ignored("response");
    }
    let bare = Request { metadata, query: None, edns: None };
    if metadata.op_code != OpCode::Query {
        return Received::Faulty(bare, ResponseCode::NotImp);
    }
    // Before the codec makes room for as many records as are announced.
    let HeaderCounts { queries, answers, authorities, additionals } = counts;
    if queries != 1
        || answers != 0
        || authorities > AUTHORITIES_MAX
        || additionals > ADDITIONALS_MAX
    {
        return Received::Faulty(bare, ResponseCode::FormErr);
    }
    let Ok(Message { mut queries, authorities, edns, .. }) = Message::from_vec(bytes) else {
        return Received::Faulty(bare, ResponseCode::FormErr);
    };
    let Some(query) = queries.pop() else {
        return Received::Faulty(bare, ResponseCode::FormErr);
    };
    let version = edns.as_ref().map_or(0, Edns::version);
    let request = Request { query: Some(query.clone()), edns, ..bare };
    if matches!(query.query_type, RecordType::AXFR | RecordType::IXFR) {
        // A zone is not given away (RFC 5936, section 2.2.1).
        return Received::Faulty(request, ResponseCode::Refused);
    }
    if !authorities.is_empty() {
        return Received::Faulty(
            Request { query: None, edns: None, ..request },
            ResponseCode::FormErr,
        );
    }
    match query.query_class {
        _ if version != 0 => Received::Faulty(request, ResponseCode::BADVERS),
        DNSClass::IN => Received::Asks(request, query),
        _ => Received::Faulty(request, ResponseCode::Refused),
    }
}

impl Request {
    /// Length of an answer, at most.
    fn bytes_max(&self, transport: Transport) -> u16 {
        match (transport, &self.edns) {
            (Transport::Tcp, _) => TCP_BYTES_MAX,
            (Transport::Udp, None) => PLAIN_UDP_BYTES,
            (Transport::Udp, Some(edns)) => {
                edns.max_payload().clamp(PLAIN_UDP_BYTES, UDP_BYTES_MAX)
            }
        }
    }

    /// Whether the client takes what it took before there was EDNS.
    pub(super) fn is_plain(&self, transport: Transport) -> bool {
        self.bytes_max(transport) == PLAIN_UDP_BYTES
    }

    /// How many records an answer may have for all of them to fit, if they are short.
    pub(super) fn answers_max(&self, transport: Transport, asked: RecordType) -> usize {
        let shortest = match asked {
            RecordType::SRV => SHORTEST_SRV_BYTES,
            _ => SHORTEST_ADDRESS_BYTES,
        };
        usize::from(self.bytes_max(transport)) / shortest
    }

    /// Writes an answer. Whole records are left out at its end, until it fits; `marks_truncation` has it say so where
    /// the client can ask again over TCP. Additional records alone are no loss: the client asks for them.
    ///
    /// # Errors
    /// Something cannot be encoded.
    pub(super) fn write(
        &self,
        found: &Found,
        is_authoritative: bool,
        transport: Transport,
        marks_truncation: bool,
    ) -> Result<Vec<u8>, ProtoError> {
        let bytes_max = self.bytes_max(transport);
        let reserved = self.edns.as_ref().map_or(0, |_| OPT_BYTES);
        let mut bytes = Vec::new();
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(bytes_max - reserved);
        let place = encoder.place::<Header>()?;
        let mut counts = HeaderCounts { queries: 0, answers: 0, authorities: 0, additionals: 0 };
        if let Some(query) = &self.query {
            query.emit(&mut encoder)?;
            counts.queries = 1;
        }
        counts.answers = write_records(&mut encoder, &found.answers)?;
        let mut is_cut = found.has_more || usize::from(counts.answers) < found.answers.len();
        if !is_cut {
            counts.authorities = write_records(&mut encoder, &found.authorities)?;
            is_cut = usize::from(counts.authorities) < found.authorities.len();
        }
        if !is_cut {
            counts.additionals = write_records(&mut encoder, &found.additionals)?;
        }
        encoder.set_max_size(bytes_max);
        if self.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_BYTES_MAX).set_rcode_high(found.code.high());
            Record::from(&edns).emit(&mut encoder)?;
            counts.additionals += 1;
        }
        let mut metadata = Metadata::response_from_request(&self.metadata);
        metadata.response_code = found.code;
        metadata.authoritative = is_authoritative;
        metadata.truncation = is_cut && marks_truncation && transport == Transport::Udp;
        place.replace(&mut encoder, Header { metadata, counts })?;
        encoder.trim();
        Ok(bytes)
    }
}

/// Writes as many whole records as there is room for; returns how many.
fn write_records(encoder: &mut BinEncoder<'_>, records: &[Record]) -> Result<u16, ProtoError> {
    let written = match encoder.emit_all(records.iter()) {
        Ok(count) | Err(ProtoError::NotAllRecordsWritten { count, .. }) => count,
        Err(error) => return Err(error),
    };
    // What is left of a record that did not fit.
    encoder.trim();
    Ok(u16::try_from(written).unwrap_or(u16::MAX))
}

const _: () = assert!(Header::LEN == 12, "a request shorter than that cannot be answered");
