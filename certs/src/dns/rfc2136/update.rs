//! The message that adds or removes one TXT record (RFC 2136).

use hickory_proto::op::{Message, OpCode, Query};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// The time to live of a value, in seconds. It is needed for minutes only, and the next attempt has another.
const TTL: u32 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Add,
    Remove,
}

/// The place of a change.
pub(super) struct Place {
    pub(super) zone: Name,
    pub(super) name: Name,
    /// True if the server says that it serves this zone.
    pub(super) served: bool,
}

impl Place {
    /// An update in the form of RFC 2136, sections 2.5.1 and 2.5.4.
    pub(super) fn update(&self, value: &str, change: Change) -> Message {
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Update;
        message.add_query(Query::query(self.zone.clone(), RecordType::SOA));
        let data = RData::TXT(TXT::new(vec![value.to_owned()]));
        let mut record = Record::from_rdata(self.name.clone(), TTL, data);
        if change == Change::Remove {
            record.ttl = 0;
            record.dns_class = DNSClass::NONE;
        }
        message.add_authority(record);
        message
    }
}
