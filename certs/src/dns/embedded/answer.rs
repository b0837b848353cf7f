//! Turns the bytes of a query into the bytes of its answer. It has no sockets.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};

use super::published::Published;
use super::zone::{Found, Zone};

/// The header of a message (RFC 1035, section 4.1.1): six fields of 16 bits.
const HEADER_LEN: usize = 12;

/// The longest query that is parsed. A question takes at most 271 bytes with its header. The rest is for EDNS options,
/// of which padding is the longest.
pub(super) const LONGEST_QUERY: usize = 2048;

/// The longest answer in one datagram, whatever the resolver offers. It passes every IPv6 path unfragmented, and it
/// makes amplification hardly worthwhile.
const LONGEST_DATAGRAM: u16 = 1232;

/// The datagram that every resolver accepts (RFC 1035, section 2.3.4).
const SHORTEST_LIMIT: u16 = 512;

/// The most additional records of a query: EDNS and a signature.
const MOST_ADDITIONALS: u16 = 2;

/// How a query arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// In a datagram. An answer that does not fit is asked for again over TCP.
    Udp,
    /// In a datagram from a network that has reached its answer limit. Records are only given over TCP, where addresses
    /// cannot be forged.
    LimitedUdp,
    /// Over a TCP connection.
    Tcp,
}

/// The header, read without the rest of the message, which may be malformed.
struct Header {
    id: u16,
    op_code: OpCode,
    recursion_desired: bool,
    counts: [u16; 4],
}

/// Answers a query. `None` for other bytes, and for answers, since two servers could answer each other endlessly.
pub(super) fn answer(zone: &Zone, published: &Published, bytes: &[u8], over: Over) -> Option<Vec<u8>> {
    let header = Header::read(bytes)?;
    let [questions, answers, authorities, additionals] = header.counts;
    if header.op_code != OpCode::Query {
        return header.refuse(bytes, ResponseCode::NotImp);
    }
    // The counts are checked before they control any parsing.
    if bytes.len() > LONGEST_QUERY
        || questions != 1
        || answers != 0
        || authorities != 0
        || additionals > MOST_ADDITIONALS
    {
        return header.refuse(bytes, ResponseCode::FormErr);
    }
    let Ok(query) = Message::from_vec(bytes) else { return header.refuse(bytes, ResponseCode::FormErr) };
    let mut reply = header.reply(ResponseCode::NoError);
    if let Some(edns) = &query.edns {
        reply.set_edns(own_edns(edns));
    }
    fill(zone, published, &query, &mut reply);
    let limit = match (over, &query.edns) {
        (Over::Tcp, _) => u16::MAX,
        (Over::Udp, Some(edns)) => edns.max_payload().clamp(SHORTEST_LIMIT, LONGEST_DATAGRAM),
        (Over::Udp, None) => SHORTEST_LIMIT,
        (Over::LimitedUdp, _) => 0,
    };
    let whole = reply.to_vec().ok()?;
    // Without records there is nothing to leave out.
    if whole.len() <= usize::from(limit) || (reply.answers.is_empty() && reply.authorities.is_empty()) {
        return Some(whole);
    }
    reply.answers.clear();
    reply.authorities.clear();
    reply.metadata.truncation = true;
    reply.to_vec().ok()
}

/// The part of an answer that depends on the question.
fn fill(zone: &Zone, published: &Published, query: &Message, reply: &mut Message) {
    let code = |reply: &mut Message, code| reply.metadata.response_code = code;
    let Some(question) = query.queries.first() else { return code(reply, ResponseCode::FormErr) };
    // In the same upper and lower case, since resolvers compare it (draft-vixie-dnsext-dns0x20).
    reply.add_query(question.clone());
    if query.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        return code(reply, ResponseCode::BADVERS);
    }
    if query.signature.is_some() {
        // The responder knows no keys (RFC 8945, section 5.2.1).
        return code(reply, ResponseCode::NotAuth);
    }
    let kind = question.query_type();
    if question.query_class() != DNSClass::IN || matches!(kind, RecordType::AXFR | RecordType::IXFR) {
        return code(reply, ResponseCode::Refused);
    }
    let name = question.name().to_lowercase();
    let (records, ttl, found) = match zone.find(&name, kind, published) {
        Found::Elsewhere => return code(reply, ResponseCode::Refused),
        Found::Records(records, ttl) => (records, ttl, true),
        Found::NoName => (Vec::new(), 0, false),
    };
    reply.metadata.authoritative = true;
    if !found {
        code(reply, ResponseCode::NXDomain);
    }
    if records.is_empty() {
        let soa = RData::SOA(zone.soa(published));
        reply.add_authority(Record::from_rdata(zone.apex_name().clone(), zone.negative_ttl(&name), soa));
    }
    reply.add_answers(records.into_iter().map(|data| Record::from_rdata(question.name().clone(), ttl, data)));
}

/// Our EDNS record (RFC 6891), for a query that has one.
fn own_edns(theirs: &Edns) -> Edns {
    let mut own = Edns::new();
    own.set_max_payload(LONGEST_DATAGRAM).set_dnssec_ok(theirs.flags().dnssec_ok);
    own
}

impl Header {
    /// `None` if it is cut short or belongs to an answer.
    fn read(bytes: &[u8]) -> Option<Self> {
        let fields = bytes.get(..HEADER_LEN)?;
        let field = |index: usize| u16::from_be_bytes([fields[index * 2], fields[index * 2 + 1]]);
        let flags = field(1);
        (flags & 0x8000 == 0).then(|| Self {
            id: field(0),
            op_code: OpCode::from_u8((flags >> 11) as u8 & 0xf),
            recursion_desired: flags & 0x0100 != 0,
            counts: [field(2), field(3), field(4), field(5)],
        })
    }

    /// An answer that only reports an error, with the question and EDNS if they are readable (RFC 6891, section 7).
    fn refuse(&self, bytes: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
        let mut reply = self.reply(code);
        if bytes.len() <= LONGEST_QUERY {
            match Message::from_vec(bytes) {
                Ok(query) => {
                    if let [question] = query.queries.as_slice() {
                        reply.add_query(question.clone());
                    }
                    if let Some(edns) = &query.edns {
                        reply.set_edns(own_edns(edns));
                    }
                }
                // The question may be readable although what follows is broken.
                Err(_) if self.counts[0] == 1 => {
                    let mut decoder = BinDecoder::new(bytes).clone(HEADER_LEN as u16);
                    reply.add_queries(Query::read(&mut decoder).ok());
                }
                Err(_) => {}
            }
        }
        reply.to_vec().ok()
    }

    fn reply(&self, code: ResponseCode) -> Message {
        let mut reply = Message::new(self.id, MessageType::Response, self.op_code);
        let metadata: &mut Metadata = &mut reply.metadata;
        metadata.recursion_desired = self.recursion_desired;
        metadata.response_code = code;
        reply
    }
}
