//! Runs pebble and its DNS as programs that end with the test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cok_certs::Authority;
use cok_certs::dns::{BoxFuture, Solver, SolverError};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// How often a program is started with other ports, if its own are taken.
const STARTS: usize = 5;
/// The external account for binding: its identifier, and its HMAC key in base64url.
pub(crate) const EXTERNAL_ACCOUNT: (&str, &str) =
    ("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W");

/// A program that ends with the test. All its output is read, so that it never blocks.
pub(crate) struct Program {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Program {
    /// `None` if it ends before it is ready.
    fn start(command: &mut Command, ready: &'static str) -> Option<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        let mut child = child.expect("the Debian package pebble is installed");
        let output = BufReader::new(child.stdout.take().unwrap());
        let (told, is_ready) = mpsc::channel();
        let program = Self { child, lines: Arc::default() };
        let lines = program.lines.clone();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if line.contains(ready) {
                    let _nobody_waits_twice = told.send(());
                }
                lines.lock().unwrap().push(line);
            }
        });
        match is_ready.recv_timeout(DEADLINE) {
            Ok(()) => Some(program),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("it is ready in time"),
        }
    }

    fn count(&self, of: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|line| line.contains(of)).count()
    }

    /// The number of orders in pebble.
    pub(crate) fn orders(&self) -> usize {
        self.count("orders in the db")
    }

    /// The number of accounts that pebble has created.
    pub(crate) fn accounts(&self) -> usize {
        self.count("accounts in memory")
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A free port outside the kernel's range for unnamed ports, so that other programs hardly take it.
fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Starts a program until it gets its ports.
fn start<T>(once: impl Fn() -> Option<T>) -> T {
    (0..STARTS).find_map(|_| once()).expect("it starts, as its output says")
}

/// A solver that uses the management address of pebble-challtestsrv.
#[derive(Debug)]
pub(crate) struct TestDns {
    management: u16,
    dns: u16,
    pub(crate) presented: Mutex<Vec<String>>,
    pub(crate) cleaned: AtomicUsize,
    /// How often the renewer has waited for the values.
    pub(crate) looked: AtomicUsize,
    /// True if a removal never ends.
    pub(crate) hangs: AtomicBool,
}

impl TestDns {
    pub(crate) fn start() -> (Program, Arc<Self>) {
        start(|| {
            let (management, dns) = (free_port(), free_port());
            let mut program = Program::start(
                Command::new("pebble-challtestsrv")
                    .args(["-management", &format!("127.0.0.1:{management}")])
                    .args(["-dns01", &format!("127.0.0.1:{dns}")])
                    .args(["-http01", "", "-https01", "", "-tlsalpn01", ""]),
                "Starting management server",
            )?;
            let up = || [management, dns].iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok());
            wait_for(|| program.has_ended() || up());
            if program.has_ended() {
                return None;
            }
            let dns = Self {
                management,
                dns,
                presented: Mutex::default(),
                cleaned: AtomicUsize::new(0),
                looked: AtomicUsize::new(0),
                hangs: AtomicBool::new(false),
            };
            Some((program, Arc::new(dns)))
        })
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
        if self.hangs.load(Ordering::Relaxed) {
            return Box::pin(std::future::pending());
        }
        self.cleaned.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    }

    fn settled<'a>(&'a self, _: &'a [String]) -> BoxFuture<'a, ()> {
        self.looked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async {})
    }
}

/// Pebble with a certificate of our own authority. A restart makes it forget all accounts.
pub(crate) struct Pebble {
    folder: PathBuf,
    pub(crate) ca_file: PathBuf,
    port: u16,
    dns: u16,
    /// How many nonces in a hundred are rejected.
    pub(crate) nonce_reject: u8,
    /// True if accounts must be bound to [`EXTERNAL_ACCOUNT`].
    pub(crate) external_account: bool,
}

impl Pebble {
    /// Chooses the ports, which all later starts use.
    pub(crate) fn new(folder: &Path, dns: &TestDns) -> Self {
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
        let ca_file = authority.ca_file().to_owned();
        let (folder, port) = (folder.to_owned(), free_port());
        Self { folder, ca_file, port, dns: dns.dns, nonce_reject: 0, external_account: false }
    }

    pub(crate) fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.port)
    }

    /// Starts it for the first time, on other ports if its own are taken.
    pub(crate) fn first_start(&mut self) -> Program {
        for _ in 0..STARTS {
            if let Some(program) = self.try_start() {
                return program;
            }
            self.port = free_port();
        }
        panic!("it starts, as its output says");
    }

    /// Starts it once its ports are free.
    pub(crate) fn start(&self) -> Program {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            if let Some(program) = self.try_start() {
                return program;
            }
        }
        panic!("it starts, as its output says");
    }

    fn try_start(&self) -> Option<Program> {
        let config = self.folder.join("pebble.json");
        let (kid, key) = EXTERNAL_ACCOUNT;
        let json = format!(
            "{{\"pebble\":{{\"listenAddress\":\"127.0.0.1:{}\",\"managementListenAddress\":\"\",\
             \"certificate\":{:?},\"privateKey\":{:?},\"httpPort\":5002,\"tlsPort\":5001,\
             \"externalAccountBindingRequired\":{},\"externalAccountMACKeys\":{{\"{kid}\":\"{key}\"}}}}}}",
            self.port,
            self.folder.join("cert.pem").display().to_string(),
            self.folder.join("key.pem").display().to_string(),
            self.external_account,
        );
        std::fs::write(&config, json).unwrap();
        let mut program = Program::start(
            Command::new("pebble")
                .args(["-strict", "-config"])
                .arg(&config)
                .args(["-dnsserver", &format!("127.0.0.1:{}", self.dns)])
                .env("PEBBLE_VA_NOSLEEP", "1")
                .env("PEBBLE_AUTHZREUSE", "100")
                .env("PEBBLE_WFE_NONCEREJECT", self.nonce_reject.to_string()),
            "Listening on",
        )?;
        wait_for(|| program.has_ended() || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
        (!program.has_ended()).then_some(program)
    }
}

pub(crate) fn wait_for(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "not in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}
