use std::sync::Arc;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::{DNSClass, Name, RecordType, TSigner};

use super::published::MOST_VALUES;
use super::*;
use crate::dns::{Solver as _, SolverError};

mod sockets;

const CHALLENGE: &str = "_acme-challenge.tunnel.example.com.";

fn responder() -> Arc<Embedded> {
    Embedded::new(Zone::challenge("tunnel.example.com", None, None).unwrap())
}

fn whole() -> Arc<Embedded> {
    let host = Host {
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        issuers: vec!["letsencrypt.org".to_owned()],
        alpn: vec!["h3".to_owned(), "h2".to_owned()],
        port: None,
    };
    Embedded::new(Zone::whole("tunnel.example.com", None, host).unwrap())
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn ask(responder: &Embedded, query: &Message, over: Over) -> Message {
    let answer = responder.answer(&query.to_vec().unwrap(), over).unwrap();
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!((answer.id, answer.message_type), (7, MessageType::Response));
    assert!(!answer.recursion_available);
    answer
}

fn short(responder: &Embedded, name: &str, kind: RecordType) -> (ResponseCode, Vec<String>, Vec<RecordType>) {
    let answer = ask(responder, &query(name, kind), Over::Udp);
    let texts = answer.answers.iter().map(|record| record.data.to_string()).collect();
    let authorities = answer.authorities.iter().map(hickory_proto::rr::Record::record_type).collect();
    (answer.response_code, texts, authorities)
}

async fn present(responder: &Embedded, values: &[&str]) {
    for value in values {
        responder.present(value).await.unwrap();
    }
}

#[tokio::test]
async fn values_are_published_together_and_removed_one_by_one() {
    let responder = responder();
    let serial = |responder: &Embedded| responder.published.load().serial;
    let before = serial(&responder);
    present(&responder, &["one", "two", "one"]).await;
    assert_ne!(serial(&responder), before);
    let answer = ask(&responder, &query(CHALLENGE, RecordType::TXT), Over::Udp);
    assert!(answer.authoritative);
    assert!(answer.answers.iter().all(|record| record.ttl == 0));
    assert_eq!(short(&responder, CHALLENGE, RecordType::TXT).1, ["one", "two"]);
    responder.cleanup("one").await.unwrap();
    responder.cleanup("never there").await.unwrap();
    assert_eq!(short(&responder, CHALLENGE, RecordType::TXT).1, ["two"]);
    responder.cleanup("two").await.unwrap();
    let none = ask(&responder, &query(CHALLENGE, RecordType::TXT), Over::Udp);
    assert_eq!((none.response_code, none.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!((none.authorities[0].record_type(), none.authorities[0].ttl), (RecordType::SOA, 0));
    assert!(responder.present(&"x".repeat(256)).await.is_err());
}

#[tokio::test]
async fn the_oldest_values_make_room() {
    let responder = responder();
    for number in 0..100 {
        responder.present(&format!("value {number}")).await.unwrap();
    }
    let values = responder.published.load().values.clone();
    assert_eq!((values.len(), values.last().unwrap().as_str()), (MOST_VALUES, "value 99"));
}

#[tokio::test]
async fn the_challenge_zone_answers_for_its_apex_alone() {
    let responder = responder();
    present(&responder, &["value"]).await;
    let (none, soa) = (Vec::<String>::new(), vec![RecordType::SOA]);
    assert_eq!(short(&responder, CHALLENGE, RecordType::NS).1, ["tunnel.example.com."]);
    let answer = short(&responder, CHALLENGE, RecordType::SOA);
    assert!(answer.1[0].starts_with("tunnel.example.com. hostmaster.tunnel.example.com. "), "{answer:?}");
    for kind in [RecordType::A, RecordType::AAAA, RecordType::CAA, RecordType::HTTPS, RecordType::CNAME] {
        assert_eq!(short(&responder, CHALLENGE, kind), (ResponseCode::NoError, none.clone(), soa.clone()), "{kind}");
    }
    let below = format!("x.{CHALLENGE}");
    assert_eq!(short(&responder, &below, RecordType::TXT), (ResponseCode::NXDomain, none.clone(), soa));
    for elsewhere in [".", "com.", "tunnel.example.com.", "x_acme-challenge.tunnel.example.com.", "example.org."] {
        let answer = ask(&responder, &query(elsewhere, RecordType::TXT), Over::Udp);
        assert_eq!(answer.response_code, ResponseCode::Refused, "{elsewhere}");
        assert!(!answer.authoritative && answer.answers.is_empty() && answer.authorities.is_empty());
    }
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        assert_eq!(ask(&responder, &query(CHALLENGE, kind), Over::Tcp).response_code, ResponseCode::Refused);
    }
    let mut chaos = query(CHALLENGE, RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(ask(&responder, &chaos, Over::Udp).response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn the_question_comes_back_as_it_was_asked() {
    let responder = responder();
    present(&responder, &["value"]).await;
    let asked = query("_aCmE-ChAlLeNgE.TUNNEL.eXaMpLe.CoM.", RecordType::TXT).to_vec().unwrap();
    let answer = responder.answer(&asked, Over::Udp).unwrap();
    assert_eq!(answer[12..asked.len()], asked[12..]);
    // The answer's owner is a pointer to it.
    assert_eq!(answer[asked.len()..asked.len() + 2], [0xc0, 12]);
    assert!(answer.ends_with(b"\x05value"));
}

#[tokio::test]
async fn a_cname_may_lead_to_the_zone() {
    let zone = Zone::challenge("tunnel.example.com", Some("x.acme.example.net"), Some("ns.example.net")).unwrap();
    assert_eq!(zone.delegation(), "x.acme.example.net. 3600 IN NS ns.example.net.");
    let responder = Embedded::new(zone);
    present(&responder, &["value"]).await;
    assert_eq!(short(&responder, "x.acme.example.net.", RecordType::TXT).1, ["value"]);
    assert_eq!(short(&responder, CHALLENGE, RecordType::TXT).0, ResponseCode::Refused);
    assert!(Zone::challenge("a..b", None, None).is_err());
    assert!(Zone::challenge("a.example", Some(""), None).is_err());
}

#[tokio::test]
async fn the_whole_zone_has_hosts() {
    let responder = whole();
    present(&responder, &["value"]).await;
    for name in ["tunnel.example.com.", "Any.tunnel.example.com.", "a.b.tunnel.example.com."] {
        assert_eq!(short(&responder, name, RecordType::A).1, ["192.0.2.1"]);
        assert_eq!(short(&responder, name, RecordType::AAAA).1, ["2001:db8::1"]);
        assert_eq!(short(&responder, name, RecordType::HTTPS).1, ["1 . alpn=h3,h2,"]);
        assert_eq!(short(&responder, name, RecordType::MX).2, [RecordType::SOA]);
    }
    assert_eq!(short(&responder, "tunnel.example.com.", RecordType::CAA).1, ["0 issue \"letsencrypt.org\""]);
    assert_eq!(short(&responder, "any.tunnel.example.com.", RecordType::CAA).2, [RecordType::SOA]);
    assert_eq!(short(&responder, "tunnel.example.com.", RecordType::NS).1, ["tunnel.example.com."]);
    assert_eq!(short(&responder, CHALLENGE, RecordType::TXT).1, ["value"]);
    assert_eq!(short(&responder, CHALLENGE, RecordType::A).0, ResponseCode::NoError);
    for name in ["_dmarc", "_8443._https", "a._tcp", "a._tcp.b", "_acme-challenge.a"] {
        let name = format!("{name}.tunnel.example.com.");
        assert_eq!(short(&responder, &name, RecordType::A).0, ResponseCode::NXDomain, "{name}");
    }
    assert_eq!(short(&responder, "example.com.", RecordType::A).0, ResponseCode::Refused);
    let any = ask(&responder, &query("tunnel.example.com.", RecordType::ANY), Over::Udp);
    assert_eq!(any.answers.len(), 1);
}

#[tokio::test]
async fn the_https_record_names_another_port() {
    let host = Host {
        addresses: vec!["192.0.2.1".parse().unwrap()],
        alpn: vec!["h3".to_owned(), "h2".to_owned()],
        port: Some(8443),
        ..Host::default()
    };
    let responder = Embedded::new(Zone::whole("tunnel.example.com", None, host).unwrap());
    for host in ["tunnel.example.com.", "any.tunnel.example.com."] {
        assert_eq!(short(&responder, host, RecordType::HTTPS).1, ["1 . alpn=h3,h2, port=8443"]);
        let service = format!("_8443._https.{host}");
        assert_eq!(short(&responder, &service, RecordType::HTTPS).1, ["1 . alpn=h3,h2,"]);
        for name in [&service, &format!("_https.{host}")] {
            let answer = short(&responder, name, RecordType::A);
            assert_eq!((answer.0, answer.1.len()), (ResponseCode::NoError, 0), "{name}");
        }
        for other in ["_443._https", "_x._8443._https", "_8443._http"] {
            let answer = short(&responder, &format!("{other}.{host}"), RecordType::HTTPS);
            assert_eq!(answer.0, ResponseCode::NXDomain, "{other}");
        }
    }
}

#[tokio::test]
async fn a_long_answer_is_truncated() {
    let responder = responder();
    for number in 0..MOST_VALUES {
        responder.present(&format!("{number:043}")).await.unwrap();
    }
    let mut asked = query(CHALLENGE, RecordType::TXT);
    let plain = responder.answer(&asked.to_vec().unwrap(), Over::Udp).unwrap();
    assert!(plain.len() <= 512);
    let cut = Message::from_vec(&plain).unwrap();
    assert!(cut.truncation && cut.answers.is_empty() && cut.edns.is_none());
    let whole = ask(&responder, &asked, Over::Tcp);
    assert!(!whole.truncation);
    assert_eq!(whole.answers.len(), MOST_VALUES);
    for (offered, values) in [(0, 12), (1232, 12), (65535, 12), (1232, 30), (65535, 30)] {
        responder.change(|all| all.truncate(0));
        for number in 0..values {
            responder.present(&format!("{number:043}")).await.unwrap();
        }
        let mut edns = Edns::new();
        edns.set_max_payload(offered);
        asked.set_edns(edns);
        let bytes = responder.answer(&asked.to_vec().unwrap(), Over::Udp).unwrap();
        let answer = Message::from_vec(&bytes).unwrap();
        assert!(bytes.len() <= if offered < 512 { 512 } else { 1232 });
        assert_eq!(answer.edns.as_ref().unwrap().max_payload(), 1232);
        assert_eq!(answer.truncation, offered == 0 || values == 30, "{offered} {values}");
    }
}

#[tokio::test]
async fn malformed_queries_get_an_error_or_no_answer() {
    let responder = responder();
    let good = query(CHALLENGE, RecordType::TXT).to_vec().unwrap();
    let code = |bytes: &[u8]| {
        responder.answer(bytes, Over::Udp).map(|answer| {
            assert!(answer.len() <= bytes.len().max(12), "an answer is no longer than its query");
            Message::from_vec(&answer).unwrap().response_code
        })
    };
    assert_eq!(code(&[]), None);
    assert_eq!(code(&good[..11]), None);
    let changed = |index: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[index] = byte;
        bytes
    };
    assert_eq!(code(&changed(2, 0x80)), None, "an answer");
    for op_code in [1_u8, 2, 4, 5, 6, 15] {
        assert_eq!(code(&changed(2, op_code << 3)), Some(ResponseCode::NotImp), "{op_code}");
    }
    for (index, count) in [(5, 0), (5, 2), (4, 255), (7, 1), (9, 1), (11, 1), (11, 3), (10, 255)] {
        assert_eq!(code(&changed(index, count)), Some(ResponseCode::FormErr), "{index} {count}");
    }
    for end in 12..good.len() {
        assert_eq!(code(&good[..end]), Some(ResponseCode::FormErr), "cut at {end}");
    }
    // A name that points to itself, and one that points beyond the end.
    for pointer in [[0xc0, 12], [0xff, 0xff]] {
        let mut bytes = good[..12].to_vec();
        bytes.extend([pointer[0], pointer[1], 0, 16, 0, 1]);
        assert_eq!(code(&bytes), Some(ResponseCode::FormErr));
    }
    let mut long = good.clone();
    long.resize(answer::LONGEST_QUERY + 1, 0);
    assert_eq!(code(&long), Some(ResponseCode::FormErr));
    let mut version = query(CHALLENGE, RecordType::TXT);
    let mut edns = Edns::new();
    edns.set_version(1);
    version.set_edns(edns);
    // The readable part of a refused query comes back.
    let mut notify = query(CHALLENGE, RecordType::SOA);
    notify.metadata.op_code = OpCode::Notify;
    notify.set_edns(Edns::new());
    let answer = ask(&responder, &notify, Over::Udp);
    assert_eq!((answer.response_code, &answer.queries), (ResponseCode::NotImp, &notify.queries));
    assert_eq!(answer.edns.unwrap().max_payload(), 1232);
    let mut broken = good.clone();
    broken.extend([0, 0]);
    broken[11] = 1;
    let answer = Message::from_vec(&responder.answer(&broken, Over::Udp).unwrap()).unwrap();
    assert_eq!((answer.response_code, answer.queries.len()), (ResponseCode::FormErr, 1));
    // 16 means BADVERS here and BADSIG in a signature.
    assert_eq!(u16::from(ask(&responder, &version, Over::Udp).response_code), 16);
}

#[tokio::test]
async fn no_bytes_make_it_panic() {
    let responder = whole();
    present(&responder, &["value"]).await;
    let mut edns = query(CHALLENGE, RecordType::TXT);
    edns.set_edns(Edns::new());
    let mut signed = edns.clone();
    let key = Name::from_ascii("key.").unwrap();
    let signer = TSigner::new(vec![7; 32], TsigAlgorithm::HmacSha256, key, 300).unwrap();
    signed.finalize(&signer, 1_700_000_000).unwrap();
    let service = query("_8443._https.tunnel.example.com.", RecordType::HTTPS);
    let seeds =
        [query(CHALLENGE, RecordType::TXT), query("a.tunnel.example.com.", RecordType::HTTPS), edns, signed, service];
    let mut state = 1_u64;
    let mut random = move || {
        // The generator of Numerical Recipes: repeatable, and random enough to corrupt bytes.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for round in 0..60_000 {
        let mut bytes = seeds[round % seeds.len()].to_vec().unwrap();
        for _ in 0..=random() % 4 {
            let at = random() % bytes.len();
            match random() % 3 {
                0 => bytes[at] = random() as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, random() as u8),
            }
        }
        if let Some(answer) = responder.answer(&bytes, Over::Udp) {
            assert!(answer.len() <= 1232);
        }
    }
}

#[test]
fn it_is_ready_with_one_served_address() {
    let responder = responder();
    let [first, second] = ["192.0.2.1:53", "192.0.2.2:53"].map(|address| address.parse().unwrap());
    let why = |text: &str| SolverError::Setup(text.to_owned());
    assert!(responder.ready().is_ok(), "nothing is known yet");
    assert!(responder.note(first, Some(&why("taken"))) && !responder.note(first, Some(&why("taken"))));
    assert_eq!(responder.ready(), Err(why("taken")));
    assert!(!responder.note(second, None));
    assert!(responder.ready().is_ok());
    assert_eq!(responder.refused().as_deref(), Some("taken"));
    assert!(responder.note(first, None));
    assert_eq!(responder.refused(), None);
}
