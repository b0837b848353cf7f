//! Tests orders against pebble, a real ACME server in strict mode, with pebble-challtestsrv as its DNS (Debian's
//! package `pebble`).

#![allow(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

mod server;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cok_certs::acme::{Event, Renewer, Settings, State};
use cok_certs::store::{Request, Store};
use cok_certs::{Authority, CertResolver};
use serde_json::Value;

use self::server::{DEADLINE, EXTERNAL_ACCOUNT, Pebble, TestDns, wait_for};

const NAMES: [&str; 2] = ["tunnel.test", "*.tunnel.test"];

/// A renewer at work as in a daemon. Dropping it ends the daemon.
struct Running {
    runtime: Option<tokio::runtime::Runtime>,
    events: Receiver<Event>,
}

impl Running {
    fn start(folder: &Path, pebble: &Pebble, dns: &Arc<TestDns>) -> Self {
        Self::start_as(folder, pebble, dns, None)
    }

    fn start_as(folder: &Path, pebble: &Pebble, dns: &Arc<TestDns>, external: Option<(&str, &str)>) -> Self {
        let external_account = external.map(|(id, key)| (id.to_owned(), URL_SAFE_NO_PAD.decode(key).unwrap()));
        let settings = Settings {
            directory: pebble.directory(),
            contact: vec!["mailto:ops@tunnel.test".into()],
            ca_file: Some(pebble.ca_file.clone()),
            external_account,
            profile: None,
            fingerprint: "tests".into(),
        };
        let store = Store::open(folder, &settings.directory).unwrap();
        let renewer = Renewer::new(settings, &NAMES, store, dns.clone()).unwrap();
        let own = Authority::load_or_create(&folder.join("own")).unwrap().issue(&NAMES).unwrap();
        let resolver = Arc::new(CertResolver::new("tunnel.test", own));
        let (tell, events) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.spawn(renewer.run(resolver, move |event| {
            let _nobody_listens_at_the_end = tell.send(event);
        }));
        Self { runtime: Some(runtime), events }
    }

    fn wait(&self, wanted: impl Fn(&Event) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !wanted(&self.events.recv_timeout(end.saturating_duration_since(Instant::now())).expect("in time")) {}
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

fn store(folder: &Path, pebble: &Pebble) -> Store {
    Store::open(folder, &pebble.directory()).unwrap()
}

fn serial(folder: &Path, pebble: &Pebble) -> String {
    store(folder, pebble).load(&NAMES).unwrap().unwrap().facts.serial
}

#[test]
fn a_certificate_is_issued_kept_and_renewed_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let (_dns_program, dns) = TestDns::start();
    let mut pebble = Pebble::new(folder.path(), &dns);
    let program = pebble.first_start();

    let running = Running::start(folder.path(), &pebble, &dns);
    running.wait(|event| *event == Event::Issued);
    wait_for(|| dns.cleaned.load(Ordering::Relaxed) == 2);
    drop(running);
    let first = serial(folder.path(), &pebble);
    assert_eq!(dns.presented.lock().unwrap().len(), 2, "base and wildcard, each with a value of its own");

    // After a restart it serves its certificate. The operator's request comes later and causes the first new order.
    let running = Running::start(folder.path(), &pebble, &dns);
    running.wait(|event| matches!(event, Event::Serving(_)));
    assert_eq!(serial(folder.path(), &pebble), first, "no new certificate");
    store(folder.path(), &pebble).request(Request::Renewal).unwrap();
    running.wait(|event| *event == Event::Issued);
    wait_for(|| serial(folder.path(), &pebble) != first);
    assert_eq!(program.orders(), 2, "the start has placed no order");
    assert_eq!(dns.presented.lock().unwrap().len(), 2, "proven names are not proven again");
    assert_eq!(dns.looked.load(Ordering::Relaxed), 1, "and no values are looked for");

    // A new server knows no account.
    drop(program);
    let program = pebble.start();
    let second = serial(folder.path(), &pebble);
    store(folder.path(), &pebble).request(Request::Renewal).unwrap();
    running.wait(|event| *event == Event::Issued);
    wait_for(|| serial(folder.path(), &pebble) != second);
    assert_eq!((program.orders(), program.accounts()), (1, 1));
    assert_eq!(dns.presented.lock().unwrap().len(), 4);
}

#[test]
fn half_of_all_nonces_may_be_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let (_dns_program, dns) = TestDns::start();
    let mut pebble = Pebble::new(folder.path(), &dns);
    pebble.nonce_reject = 50;
    let _program = pebble.first_start();
    let running = Running::start(folder.path(), &pebble, &dns);
    let issued = || {
        running.wait(|event| {
            assert_ne!(*event, Event::Failed);
            *event == Event::Issued
        });
    };
    issued();
    // Rejected nonces do not stop a key change either.
    let (store, old) = (store(folder.path(), &pebble), account(folder.path(), &pebble));
    store.request(Request::Rollover).unwrap();
    store.request(Request::Renewal).unwrap();
    issued();
    assert_ne!(account(folder.path(), &pebble)["key_pkcs8"], old["key_pkcs8"]);
}

#[test]
fn a_certificate_does_not_wait_for_the_removal_of_records() {
    let folder = tempfile::tempdir().unwrap();
    let (_dns_program, dns) = TestDns::start();
    let mut pebble = Pebble::new(folder.path(), &dns);
    let _program = pebble.first_start();
    dns.hangs.store(true, Ordering::Relaxed);
    let running = Running::start(folder.path(), &pebble, &dns);
    running.wait(|event| matches!(event, Event::Serving(_)));
    running.wait(|event| *event == Event::Issued);
    assert!(store(folder.path(), &pebble).load(&NAMES).unwrap().is_some(), "it is saved");
}

#[test]
fn a_request_during_an_attempt_is_carried_out_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let (_dns_program, dns) = TestDns::start();
    let mut pebble = Pebble::new(folder.path(), &dns);
    let program = pebble.first_start();
    let store = store(folder.path(), &pebble);
    let running = Running::start(folder.path(), &pebble, &dns);
    running.wait(|event| *event == Event::Issued);
    let old = account(folder.path(), &pebble)["key_pkcs8"].clone();
    // A second attempt begins, and another request arrives before it ends.
    for request in [Request::Renewal, Request::Rollover] {
        let orders = program.orders();
        store.request(Request::Renewal).unwrap();
        wait_for(|| program.orders() > orders);
        store.request(request).unwrap();
        for _ in 0..2 {
            running.wait(|event| {
                assert_ne!(*event, Event::Failed);
                *event == Event::Issued
            });
        }
        wait_for(|| store.requested_at(request).is_none());
        assert_eq!(program.orders(), orders + 2);
    }
    assert_ne!(account(folder.path(), &pebble)["key_pkcs8"], old);
}

#[test]
fn failures_with_other_settings_delay_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (_dns_program, dns) = TestDns::start();
    let mut pebble = Pebble::new(folder.path(), &dns);
    let _program = pebble.first_start();
    let mut failed = State::default();
    failed.failures = 7;
    assert!(failed.is_meant_for("tunnel.test *.tunnel.test mistyped"));
    failed.begin(cok_certs::unix_now());
    store(folder.path(), &pebble).write_json("state.json", &failed).unwrap();
    let running = Running::start(folder.path(), &pebble, &dns);
    running.wait(|event| *event == Event::Issued);
}

#[test]
fn an_unreachable_server_is_reported_and_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (_dns_program, dns) = TestDns::start();
    let pebble = Pebble::new(folder.path(), &dns);
    let running = Running::start(folder.path(), &pebble, &dns);
    running.wait(|event| *event == Event::Failed);
    let _program = pebble.start();
    running.wait(|event| *event == Event::Issued);
}

/// The stored account: its URL and its key.
fn account(folder: &Path, pebble: &Pebble) -> Value {
    store(folder, pebble).read_json("account.json").unwrap().unwrap()
}

#[test]
fn the_account_gets_a_new_key_even_if_the_change_is_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    let (_dns_program, dns) = TestDns::start();
    let mut pebble = Pebble::new(folder.path(), &dns);
    let program = pebble.first_start();
    let renew = || {
        let running = Running::start(folder.path(), &pebble, &dns);
        store(folder.path(), &pebble).request(Request::Renewal).unwrap();
        running.wait(|event| {
            assert_ne!(*event, Event::Failed);
            *event == Event::Issued
        });
    };
    let store = store(folder.path(), &pebble);
    let is_settled = || store.read_json::<Value>("account.next.json").unwrap().is_none();
    renew();
    let old = account(folder.path(), &pebble);

    store.request(Request::Rollover).unwrap();
    renew();
    let new = account(folder.path(), &pebble);
    assert_eq!(new["id"], old["id"]);
    assert_ne!(new["key_pkcs8"], old["key_pkcs8"]);
    assert!(store.requested_at(Request::Rollover).is_none() && is_settled());

    // Killed after the server has accepted the key: the disk has both keys. The old one alone could place no order.
    store.write_json("account.json", &old).unwrap();
    store.write_json("account.next.json", &new).unwrap();
    renew();
    assert_eq!(account(folder.path(), &pebble), new);
    assert!(is_settled());

    // Killed before: the server does not know the newer key. The request is still open, and is carried out.
    let mut unknown = new.clone();
    unknown["key_pkcs8"] = URL_SAFE_NO_PAD.encode(rcgen::KeyPair::generate().unwrap().serialize_der()).into();
    store.write_json("account.next.json", &unknown).unwrap();
    renew();
    assert_eq!(account(folder.path(), &pebble), new);
    assert!(is_settled());
    assert_eq!(program.accounts(), 1, "it is one account all the time");
}

#[test]
fn an_account_is_bound_to_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let (_dns_program, dns) = TestDns::start();
    let mut pebble = Pebble::new(folder.path(), &dns);
    pebble.external_account = true;
    let program = pebble.first_start();
    let (id, key) = EXTERNAL_ACCOUNT;
    let wrong_key = "bm90IHRoZSBrZXk";
    let wrong = [
        (None, "no account: "),
        (Some((id, wrong_key)), "bound to kid-1: "),
        (Some(("kid-2", key)), "bound to kid-2: "),
    ];
    for (external, words) in wrong {
        let place = tempfile::tempdir().unwrap();
        let running = Running::start_as(place.path(), &pebble, &dns, external);
        running.wait(|event| *event == Event::Failed);
        drop(running);
        let state: State = store(place.path(), &pebble).read_json("state.json").unwrap().unwrap();
        let error = state.last_error.unwrap();
        assert!(error.starts_with("no account") && error.contains(words), "{error}");
    }
    assert_eq!((program.accounts(), program.orders()), (0, 0));
    let running = Running::start_as(folder.path(), &pebble, &dns, Some(EXTERNAL_ACCOUNT));
    running.wait(|event| *event == Event::Issued);
    drop(running);

    // The server forgets all accounts and refuses a new one. The stored account stays, since the server may recover.
    drop(program);
    let _program = pebble.start();
    let kept = account(folder.path(), &pebble);
    let running = Running::start_as(folder.path(), &pebble, &dns, Some((id, wrong_key)));
    store(folder.path(), &pebble).request(Request::Renewal).unwrap();
    running.wait(|event| *event == Event::Failed);
    drop(running);
    assert_eq!(account(folder.path(), &pebble), kept);
    // The wait after a failure is removed.
    store(folder.path(), &pebble).remove("state.json").unwrap();
    let running = Running::start_as(folder.path(), &pebble, &dns, Some(EXTERNAL_ACCOUNT));
    running.wait(|event| *event == Event::Issued);
    assert_ne!(account(folder.path(), &pebble)["id"], kept["id"]);
}
