//! Sends arbitrary bytes to the DNS responder. It never panics, and each answer belongs to its query and fits a
//! datagram.

#![no_main]

use std::sync::{Arc, LazyLock};

use cok_certs::dns::Solver;
use cok_certs::dns::embedded::{Embedded, Host, Over, Zone};
use libfuzzer_sys::fuzz_target;

const LONGEST_DATAGRAM: usize = 1232;

static RESPONDERS: LazyLock<[Arc<Embedded>; 2]> = LazyLock::new(|| {
    let host = Host {
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        issuers: vec!["ca.example".to_owned()],
        alpn: vec!["h3".to_owned(), "h2".to_owned()],
        port: Some(8443),
    };
    let responders = [
        Embedded::new(Zone::challenge("a.example", None, None).unwrap()),
        Embedded::new(Zone::whole("a.example", None, host).unwrap()),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for responder in &responders {
        for number in 0..20 {
            runtime.block_on(responder.present(&format!("{number:043}"))).unwrap();
        }
    }
    responders
});

fuzz_target!(|bytes: &[u8]| {
    for responder in &*RESPONDERS {
        for over in [Over::Udp, Over::LimitedUdp, Over::Tcp] {
            let Some(answer) = responder.answer(bytes, over) else { continue };
            assert_eq!(answer[..2], bytes[..2], "the query's id");
            assert!(answer[2] & 0x80 != 0, "an answer");
            assert!(over == Over::Tcp || answer.len() <= LONGEST_DATAGRAM);
        }
    }
});
