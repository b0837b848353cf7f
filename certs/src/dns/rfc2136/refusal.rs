//! Explains why a server did not change a record, in words for the person who runs it.

use std::net::SocketAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::tsig::TsigError;

use super::key::Key;
use super::update::Place;
use crate::clock::unix_now;
use crate::dns::SolverError;

/// The error for this answer of a server.
pub(super) fn refusal(server: SocketAddr, place: &Place, key: Option<&Key>, answer: &Message) -> SolverError {
    let Place { zone, name, served } = place;
    let records = format!("the TXT records of {name}");
    let signature = answer.signature().map(|record| &record.data);
    let error = signature.and_then(|signature| signature.error);
    let why = match (answer.response_code, key, error) {
        (ResponseCode::NotAuth, Some(key), Some(TsigError::BadKey)) => {
            let (key, algorithm) = (key.0.signer_name(), key.0.algorithm());
            format!(
                "{server} does not accept the key {key} ({algorithm}) for {records} (BADKEY): it has no key of this \
                 name and algorithm, or its ACL does not allow this key to change them"
            )
        }
        (ResponseCode::NotAuth, Some(key), Some(TsigError::BadSig)) => {
            format!("{server} has another secret for the key {} (BADSIG)", key.0.signer_name())
        }
        (ResponseCode::NotAuth, Some(_), Some(TsigError::BadTime)) => {
            let other = signature.map_or(&[][..], |signature| &signature.other);
            format!("{server} refuses the time of our signature (BADTIME): {}", clocks(other))
        }
        (ResponseCode::NotAuth, _, _) if !served => {
            format!("{server} is not the primary server of the zone {zone} (NOTAUTH)")
        }
        // BIND answers REFUSED, and knot NOTAUTH.
        (code @ (ResponseCode::Refused | ResponseCode::NotAuth), key, _) => {
            let code = if code == ResponseCode::Refused { "REFUSED" } else { "NOTAUTH" };
            let whom = key
                .map_or_else(|| "without a TSIG key".to_owned(), |key| format!("to the key {}", key.0.signer_name()));
            format!(
                "{server} refuses to change {records} in the zone {zone} ({code}): its ACL does not allow this {whom}"
            )
        }
        (ResponseCode::NotZone, _, _) => format!("{server} says that {name} is not in the zone {zone} (NOTZONE)"),
        (ResponseCode::NotImp, _, _) => format!("{server} accepts no dynamic updates (NOTIMP)"),
        (ResponseCode::ServFail, _, _) => {
            return SolverError::Unavailable(format!(
                "{server} cannot change {records} in the zone {zone} (SERVFAIL); its log says why"
            ));
        }
        (code, _, _) => {
            return SolverError::Unavailable(format!("{server} does not change {records} in the zone {zone}: {code}"));
        }
    };
    SolverError::Setup(why)
}

/// How the clocks differ. A server that refuses a time reports its own (RFC 8945, section 5.2.3).
fn clocks(other: &[u8]) -> String {
    let advice = "let both keep the time by NTP";
    let Ok(seconds) = <[u8; 6]>::try_from(other) else { return format!("the clocks differ; {advice}") };
    let theirs = seconds.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let ours = unix_now().unsigned_abs();
    let side = if ours > theirs { "ahead of" } else { "behind" };
    format!("this machine's clock is {} s {side} the server's; {advice}", ours.abs_diff(theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_time_says_how_the_clocks_differ() {
        let now = unix_now().unsigned_abs();
        let text = clocks(&(now + 7200).to_be_bytes()[2..]);
        assert!(text.contains(" s behind the server's"), "{text}");
        assert!(clocks(&(now - 7200).to_be_bytes()[2..]).contains(" s ahead of the server's"));
        assert!(clocks(&[]).contains("the clocks differ"));
    }
}
