//! TXT records at a name server of one's own, by dynamic updates (RFC 2136) that are signed with a shared key (TSIG,
//! RFC 8945).
//!
//! It changes single records: values that others put beside ours, and the two that a certificate for a base name and its
//! wildcard needs, stand together.

use std::fmt;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::rdata::tsig::{TsigAlgorithm, TsigError};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, TSigner};
use tokio::net::lookup_host;

use super::client::{Failure, ask, question};
use super::lookup::{DNS_PORT, LONGEST_CHAIN, NameServer, Resolver, alias};
use super::{BoxFuture, Solver, SolverError, challenge_name, parse_name, propagation};
use crate::clock::unix_now;

/// How long a value may be kept, in seconds. It is there for minutes only, and the next try has another one.
const TTL: u32 = 60;
/// How far the clocks may differ, in seconds: what RFC 8945, section 10, recommends.
const FUDGE: u16 = 300;
/// The longest string of a TXT record (RFC 1035, section 3.3). An ACME value has 43 bytes.
const LONGEST_VALUE: usize = 255;

/// What an operator sets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The primary name server: a host or address, with a port if it is not 53.
    pub server: String,
    /// The zone to change; none has the server asked for it.
    pub zone: Option<String>,
    /// The key to sign with; none sends updates that the server can tell by their address alone.
    pub key: Option<Key>,
}

/// A shared key of TSIG. Its debug output holds no secret.
#[derive(Clone)]
pub struct Key(TSigner);

/// The solver.
#[derive(Debug)]
pub struct Rfc2136 {
    challenge: Name,
    host: String,
    port: u16,
    zone: Option<Name>,
    key: Option<Key>,
}

impl Key {
    /// `name` and `algorithm` as the server has them: `hmac-sha256`, `hmac-sha384` or `hmac-sha512`. The secret is what
    /// `keymgr -t` and `tsig-keygen` write: base64.
    pub fn new(name: &str, algorithm: &str, secret_base64: &str) -> Result<Self, SolverError> {
        let setup = |why: String| SolverError::Setup(why);
        let name = parse_name(name).map_err(|why| setup(format!("the TSIG key's name {name:?} is wrong: {why}")))?;
        let algorithm = self::algorithm(algorithm).ok_or_else(|| {
            setup(format!(
                "the TSIG algorithm {algorithm:?} is not supported: use hmac-sha256, hmac-sha384 or hmac-sha512"
            ))
        })?;
        // The decoder's error would show bytes of the secret.
        let secret = STANDARD
            .decode(secret_base64.trim())
            .map_err(|_| setup(format!("the secret of the TSIG key {name} is not base64")))?;
        if secret.is_empty() {
            return Err(setup(format!("the secret of the TSIG key {name} is empty")));
        }
        TSigner::new(secret, algorithm, name, FUDGE).map(Self).map_err(|error| setup(error.to_string()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Key")
            .field("name", &self.0.signer_name().to_ascii())
            .field("algorithm", &self.0.algorithm().to_string())
            .finish_non_exhaustive()
    }
}

/// Whether a text names a server as [`Settings::server`] does.
pub fn is_server(text: &str) -> bool {
    split(text).is_some()
}

/// The algorithm of a name that RFC 8945, section 6, has, if it is one of those that can be used.
fn algorithm(name: &str) -> Option<TsigAlgorithm> {
    Some(match name.trim_end_matches('.').to_ascii_lowercase().as_str() {
        "hmac-sha256" => TsigAlgorithm::HmacSha256,
        "hmac-sha384" => TsigAlgorithm::HmacSha384,
        "hmac-sha512" => TsigAlgorithm::HmacSha512,
        _ => return None,
    })
}

/// Whether keys can have this algorithm.
pub fn is_algorithm(name: &str) -> bool {
    algorithm(name).is_some()
}

impl Rfc2136 {
    /// For the challenges of a domain.
    pub fn new(domain: &str, settings: Settings) -> Result<Self, SolverError> {
        let name = |text: &str| {
            parse_name(text).map_err(|why| SolverError::Setup(format!("{text:?} is not a DNS name: {why}")))
        };
        let (host, port) = split(&settings.server).ok_or_else(|| {
            SolverError::Setup(format!(
                "{:?} is no DNS server: give its name or address, and its port if it is not {DNS_PORT}",
                settings.server
            ))
        })?;
        Ok(Self {
            challenge: name(&challenge_name(domain))?,
            host,
            port,
            zone: settings.zone.as_deref().map(name).transpose()?,
            key: settings.key,
        })
    }

    async fn change(&self, value: &str, change: Change) -> Result<(), SolverError> {
        if value.len() > LONGEST_VALUE {
            return Err(SolverError::Unavailable(format!(
                "the ACME server asks for a TXT record of {} bytes; {LONGEST_VALUE} are possible",
                value.len()
            )));
        }
        let place = self.place().await?;
        let (server, answer) = self.ask(&place.update(value, change)).await?;
        if answer.response_code == ResponseCode::NoError {
            return Ok(());
        }
        Err(self.refusal(server, &place, &answer))
    }

    /// Where the challenge's values belong: its own name, or the one that a CNAME record there leads to.
    async fn place(&self) -> Result<Place, SolverError> {
        let mut name = self.challenge.clone();
        for _ in 0..LONGEST_CHAIN {
            let (server, answer) = self.ask(&question(&name, RecordType::SOA, false)).await?;
            if let Some(target) = alias(&answer, &name) {
                name = target;
                continue;
            }
            let soa = answer.answers.iter().chain(&answer.authorities).find(|record| {
                record.record_type() == RecordType::SOA && answer.authoritative && record.name.zone_of(&name)
            });
            if let Some(zone) = self.zone.clone().or_else(|| soa.map(|soa| soa.name.clone())) {
                if soa.is_none()
                    && let Some(target) = known_elsewhere(&name).await
                {
                    name = target;
                    continue;
                }
                if !zone.zone_of(&name) {
                    return Err(SolverError::Setup(format!(
                        "{name} is not in the zone {zone}, which is to be changed"
                    )));
                }
                let served = soa.is_some_and(|soa| soa.name == zone);
                return Ok(Place { zone, name, served });
            }
            if answer.response_code == ResponseCode::NotAuth {
                let zone = name.clone();
                return Err(self.refusal(server, &Place { zone, name, served: false }, &answer));
            }
            match known_elsewhere(&name).await {
                Some(target) => name = target,
                None => {
                    return Err(SolverError::Setup(format!(
                        "{server} serves no zone that {name} is in (it answers {}): name the primary server of that \
                         zone, or let a CNAME record there lead into a zone that it serves",
                        answer.response_code
                    )));
                }
            }
        }
        Err(SolverError::Setup(format!("the CNAME records at {} lead on and on", self.challenge)))
    }

    /// Sends a message to the first address of the server that answers.
    async fn ask(&self, message: &Message) -> Result<(SocketAddr, Message), SolverError> {
        let mut last = None;
        for address in self.addresses().await? {
            match ask(address, message.clone(), self.key.as_ref().map(|key| &key.0)).await {
                Ok(answer) => return Ok((address, answer)),
                Err(failure) => last = Some(failure),
            }
        }
        Err(match last {
            Some(Failure::Request(why)) => SolverError::Setup(why),
            Some(failure) => SolverError::Unavailable(failure.to_string()),
            None => SolverError::Unavailable(format!("the DNS server {} has no address", self.host)),
        })
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, SolverError> {
        let found = lookup_host((self.host.as_str(), self.port)).await;
        let found = found.map_err(|error| {
            SolverError::Unavailable(format!("the DNS server {} has no address: {error}", self.host))
        })?;
        Ok(found.collect())
    }

    /// Why a server did not do what it was asked, in words for who runs it.
    fn refusal(&self, server: SocketAddr, place: &Place, answer: &Message) -> SolverError {
        let Place { zone, name, served } = place;
        let records = format!("the TXT records of {name}");
        let signature = answer.signature().map(|record| &record.data);
        let error = signature.and_then(|signature| signature.error);
        let why = match (answer.response_code, &self.key, error) {
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
            // BIND answers REFUSED, knot NOTAUTH.
            (code @ (ResponseCode::Refused | ResponseCode::NotAuth), key, _) => {
                let code = if code == ResponseCode::Refused { "REFUSED" } else { "NOTAUTH" };
                let whom = key.as_ref().map_or_else(
                    || "without a TSIG key".to_owned(),
                    |key| format!("to the key {}", key.0.signer_name()),
                );
                format!(
                    "{server} refuses to change {records} in the zone {zone} ({code}): its ACL does not allow this {whom}"
                )
            }
            (ResponseCode::NotZone, _, _) => format!("{server} says that {name} is not in the zone {zone} (NOTZONE)"),
            (ResponseCode::NotImp, _, _) => format!("{server} takes no dynamic updates (NOTIMP)"),
            (ResponseCode::ServFail, _, _) => {
                return SolverError::Unavailable(format!(
                    "{server} cannot change {records} in the zone {zone} (SERVFAIL); its log says why"
                ));
            }
            (code, _, _) => {
                return SolverError::Unavailable(format!(
                    "{server} does not change {records} in the zone {zone}: {code}"
                ));
            }
        };
        SolverError::Setup(why)
    }
}

impl Solver for Rfc2136 {
    fn present<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(self.change(value, Change::Add))
    }

    fn cleanup<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(self.change(value, Change::Remove))
    }

    fn settled<'a>(&'a self, values: &'a [String]) -> BoxFuture<'a, ()> {
        Box::pin(async {
            // The primary has them, or `present` had failed; its secondaries get them a little later.
            let name = self.place().await.map_or_else(|_| self.challenge.clone(), |place| place.name);
            let addresses = self.addresses().await.unwrap_or_default();
            let primary = NameServer { name: self.host.clone(), addresses };
            propagation::settled(&name, values, Some(primary)).await;
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
}

/// Where records are changed.
struct Place {
    zone: Name,
    name: Name,
    /// Whether the server says that it has this zone.
    served: bool,
}

impl Place {
    /// An update in the form of RFC 2136, sections 2.5.1 and 2.5.4.
    fn update(&self, value: &str, change: Change) -> Message {
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

/// Where a CNAME record leads that our server does not know, as it stands in a zone of others.
async fn known_elsewhere(name: &Name) -> Option<Name> {
    let target = Resolver::system().await.ok()?.target(name).await.ok()?;
    (target != *name).then_some(target)
}

/// How the clocks differ. A server that refuses a time says its own (RFC 8945, section 5.2.3).
fn clocks(other: &[u8]) -> String {
    let advice = "let both keep the time by NTP";
    let Ok(seconds) = <[u8; 6]>::try_from(other) else { return format!("the clocks differ; {advice}") };
    let theirs = seconds.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let ours = unix_now().unsigned_abs();
    let side = if ours > theirs { "ahead of" } else { "behind" };
    format!("this machine's clock is {} s {side} the server's; {advice}", ours.abs_diff(theirs))
}

/// Host and port of `host`, `host:port`, an address, or an address in brackets with a port.
fn split(server: &str) -> Option<(String, u16)> {
    if let Ok(address) = server.parse::<SocketAddr>() {
        return Some((address.ip().to_string(), address.port()));
    }
    if let Ok(address) = server.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>() {
        return Some((address.to_string(), DNS_PORT));
    }
    let (host, port) = match server.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (server, DNS_PORT),
    };
    parse_name(host).is_ok().then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(server: &str, zone: Option<&str>) -> Settings {
        Settings { server: server.to_owned(), zone: zone.map(str::to_owned), key: None }
    }

    #[test]
    fn a_server_is_a_host_or_an_address_with_or_without_a_port() {
        for (text, host, port) in [
            ("ns1.example.com", "ns1.example.com", 53),
            ("ns1.example.com:5353", "ns1.example.com", 5353),
            ("192.0.2.1", "192.0.2.1", 53),
            ("192.0.2.1:5353", "192.0.2.1", 5353),
            ("2001:db8::1", "2001:db8::1", 53),
            ("[2001:db8::1]", "2001:db8::1", 53),
            ("[2001:db8::1]:5353", "2001:db8::1", 5353),
        ] {
            assert_eq!(split(text), Some((host.to_owned(), port)), "{text}");
        }
        for text in ["", ":53", "host:", "host:x", "host:99999", "a..b", "[::1", "1.2.3.4:53:53"] {
            let result = Rfc2136::new("tunnel.example.com", settings(text, None));
            // An unclosed bracket is an address still; all else is refused.
            assert!(text == "[::1" || matches!(result, Err(SolverError::Setup(_))), "{text}");
        }
        assert!(Rfc2136::new("a..b", settings("192.0.2.1", None)).is_err());
        assert!(Rfc2136::new("a.example", settings("192.0.2.1", Some("b..c"))).is_err());
    }

    #[test]
    fn a_key_is_checked_and_hides_its_secret() {
        let secret = STANDARD.encode(b"a secret of many bytes, not to be shown");
        let key = Key::new("cokd", "HMAC-SHA256.", &format!(" {secret}\n")).unwrap();
        let shown = format!("{key:?} {:?}", Settings { key: Some(key.clone()), ..settings("h", None) });
        assert!(shown.contains("cokd.") && shown.contains("hmac-sha256"), "{shown}");
        assert!(!shown.contains(&secret) && !shown.contains("115, 101, 99"), "{shown}");
        for algorithm in ["hmac-sha384", "hmac-sha512"] {
            Key::new("cokd.", algorithm, &secret).unwrap();
        }
        for (name, algorithm, secret, part) in [
            ("a..b", "hmac-sha256", secret.as_str(), "a..b"),
            ("", "hmac-sha256", &secret, "empty"),
            ("cokd", "hmac-md5", &secret, "hmac-md5"),
            ("cokd", "hmac-sha256", "not base64!", "not base64"),
            ("cokd", "hmac-sha256", "", "empty"),
        ] {
            let error = Key::new(name, algorithm, secret).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains("not base64!"), "{error}");
        }
    }

    #[test]
    fn a_refused_time_says_how_the_clocks_differ() {
        let now = unix_now().unsigned_abs();
        let text = clocks(&(now + 7200).to_be_bytes()[2..]);
        assert!(text.contains(" s behind the server's"), "{text}");
        assert!(clocks(&(now - 7200).to_be_bytes()[2..]).contains(" s ahead of the server's"));
        assert!(clocks(&[]).contains("the clocks differ"));
    }
}
