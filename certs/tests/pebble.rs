//! Orders against pebble, a real ACME server in strict mode, with pebble-challtestsrv as its DNS. Both come from Debian's
//! package `pebble`.

#![allow(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cok_certs::acme::{Event, Renewer, Settings};
use cok_certs::dns::{BoxFuture, Solver, SolverError};
use cok_certs::store::{Request, Store};
use cok_certs::{Authority, CertResolver};

const NAMES: [&str; 2] = ["tunnel.test", "*.tunnel.test"];
const DEADLINE: Duration = Duration::from_secs(60);

/// A program that ends with the test. Its output is read to its end, so that it never waits for a reader.
struct Program(Child);

impl Program {
    fn start(command: &mut Command, ready: &'static str) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        let mut child = child.expect("the Debian package pebble is installed");
        let output = BufReader::new(child.stdout.take().unwrap());
        let (told, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if line.contains(ready) {
                    let _nobody_waits_twice = told.send(());
                }
            }
        });
        let program = Self(child);
        is_ready.recv_timeout(DEADLINE).expect("it is ready in time");
        program
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _status = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// TXT records through the management address of pebble-challtestsrv.
#[derive(Debug)]
struct TestDns {
    management: u16,
    dns: u16,
    presented: Mutex<Vec<String>>,
    cleaned: AtomicUsize,
}

impl TestDns {
    fn start() -> (Program, Arc<Self>) {
        let (management, dns) = (free_port(), free_port());
        let program = Program::start(
            Command::new("pebble-challtestsrv")
                .args(["-management", &format!("127.0.0.1:{management}")])
                .args(["-dns01", &format!("127.0.0.1:{dns}")])
                .args(["-http01", "", "-https01", "", "-tlsalpn01", ""]),
            "Starting management server",
        );
        let dns = Self { management, dns, presented: Mutex::default(), cleaned: AtomicUsize::new(0) };
        wait_for(|| TcpStream::connect(("127.0.0.1", management)).is_ok());
        (program, Arc::new(dns))
    }

    fn post(&self, path: &str, body: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.management)).unwrap();
        let length = body.len();
        write!(stream, "POST {path} HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
    }
}

impl Solver for TestDns {
    fn present<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
        let host = "_acme-challenge.tunnel.test.";
        self.post("/set-txt", &format!("{{\"host\":\"{host}\",\"value\":\"{value}\"}}"));
        self.presented.lock().unwrap().push(value.to_owned());
        Box::pin(async { Ok(()) })
    }

    fn cleanup<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
        self.cleaned.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    }
}

/// Pebble with a certificate of our own authority; starting it anew forgets all accounts.
struct Pebble {
    config: PathBuf,
    ca_file: PathBuf,
    port: u16,
    dns: u16,
}

impl Pebble {
    fn new(folder: &Path, dns: u16) -> Self {
        let authority = Authority::load_or_create(&folder.join("authority")).unwrap();
        let issuer_key = std::fs::read_to_string(folder.join("authority/ca.key")).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(
            &std::fs::read_to_string(authority.ca_file()).unwrap(),
            rcgen::KeyPair::from_pem(&issuer_key).unwrap(),
        )
        .unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(folder.join("cert.pem"), leaf.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        let port = free_port();
        let config = folder.join("pebble.json");
        let json = format!(
            "{{\"pebble\":{{\"listenAddress\":\"127.0.0.1:{port}\",\"managementListenAddress\":\"\",\
             \"certificate\":{:?},\"privateKey\":{:?},\"httpPort\":5002,\"tlsPort\":5001}}}}",
            folder.join("cert.pem").display().to_string(),
            folder.join("key.pem").display().to_string()
        );
        std::fs::write(&config, json).unwrap();
        Self { config, ca_file: authority.ca_file().to_owned(), port, dns }
    }

    fn start(&self, nonce_reject: u8) -> Program {
        let program = Program::start(
            Command::new("pebble")
                .args(["-strict", "-config"])
                .arg(&self.config)
                .args(["-dnsserver", &format!("127.0.0.1:{}", self.dns)])
                .env("PEBBLE_VA_NOSLEEP", "1")
                .env("PEBBLE_AUTHZREUSE", "100")
                .env("PEBBLE_WFE_NONCEREJECT", nonce_reject.to_string()),
            "Listening on",
        );
        wait_for(|| TcpStream::connect(("127.0.0.1", self.port)).is_ok());
        program
    }
}

fn wait_for(condition: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "not in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A renewer at work, as a daemon has it; dropping it is the daemon's end.
struct Running {
    runtime: Option<tokio::runtime::Runtime>,
    events: Receiver<Event>,
}

impl Running {
    fn start(folder: &Path, pebble: &Pebble, dns: &Arc<TestDns>) -> Self {
        let settings = Settings {
            directory: format!("https://127.0.0.1:{}/dir", pebble.port),
            contact: vec!["mailto:ops@tunnel.test".into()],
            ca_file: Some(pebble.ca_file.clone()),
            external_account: None,
            profile: None,
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

fn serial(folder: &Path, pebble: &Pebble) -> String {
    let store = Store::open(folder, &format!("https://127.0.0.1:{}/dir", pebble.port)).unwrap();
    store.load(&NAMES).unwrap().unwrap().facts.serial
}

#[test]
fn a_certificate_is_issued_kept_and_renewed_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let (_dns_program, dns) = TestDns::start();
    let pebble = Pebble::new(folder.path(), dns.dns);
    let program = pebble.start(0);

    let running = Running::start(folder.path(), &pebble, &dns);
    running.wait(|event| *event == Event::Issued);
    drop(running);
    let first = serial(folder.path(), &pebble);
    assert_eq!(dns.presented.lock().unwrap().len(), 2, "base and wildcard, each with a value of its own");
    assert_eq!(dns.cleaned.load(Ordering::Relaxed), 2);

    // Started again it serves what it has. The operator's request comes after that: the first order that is placed.
    let running = Running::start(folder.path(), &pebble, &dns);
    running.wait(|event| matches!(event, Event::Serving(_)));
    assert_eq!(serial(folder.path(), &pebble), first, "no new order");
    let request = Store::open(folder.path(), &format!("https://127.0.0.1:{}/dir", pebble.port)).unwrap();
    request.request(Request::Renewal).unwrap();
    running.wait(|event| *event == Event::Issued);
    wait_for(|| serial(folder.path(), &pebble) != first);
    assert_eq!(dns.presented.lock().unwrap().len(), 2, "what was proven is not proven again");

    // A server that was set up anew knows no account.
    drop(program);
    let _program = pebble.start(0);
    let second = serial(folder.path(), &pebble);
    request.request(Request::Renewal).unwrap();
    running.wait(|event| *event == Event::Issued);
    wait_for(|| serial(folder.path(), &pebble) != second);
    assert_eq!(dns.presented.lock().unwrap().len(), 4);
}

#[test]
fn half_of_all_nonces_may_be_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let (_dns_program, dns) = TestDns::start();
    let pebble = Pebble::new(folder.path(), dns.dns);
    let _program = pebble.start(50);
    let running = Running::start(folder.path(), &pebble, &dns);
    running.wait(|event| {
        assert_ne!(*event, Event::Failed);
        *event == Event::Issued
    });
}

#[test]
fn a_server_that_is_away_is_told_of_and_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (_dns_program, dns) = TestDns::start();
    let pebble = Pebble::new(folder.path(), dns.dns);
    let running = Running::start(folder.path(), &pebble, &dns);
    running.wait(|event| *event == Event::Failed);
    let _program = pebble.start(0);
    running.wait(|event| *event == Event::Issued);
}
