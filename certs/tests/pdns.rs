//! Tests the solver for DNS providers against PowerDNS, which is free to run (Debian's packages `pdns-server` and
//! `pdns-backend-lmdb`).

#![allow(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

mod knot;

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cok_certs::dns::cloud::{Cloud, Settings};
use cok_certs::dns::{Solver, SolverError};
use hickory_proto::rr::{Name, RecordType};

const CHALLENGE: &str = "_acme-challenge.tunnel.example.com.";
const DEADLINE: Duration = Duration::from_secs(20);

/// A running server that ends with the test.
struct Pdns {
    child: Child,
    folder: tempfile::TempDir,
    dns: SocketAddr,
    url: String,
}

impl Pdns {
    fn start() -> Self {
        // Another program may take a port that was free.
        (0..5).find_map(|_| Self::try_start()).expect("pdns_server starts")
    }

    fn try_start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let (dns, web) = (knot::free_port("127.0.0.1"), knot::free_port("127.0.0.1"));
        let config = format!(
            "launch=lmdb\nlmdb-filename={path}/db\nsocket-dir={path}\nlocal-address=127.0.0.1\nlocal-port={dns}\n\
             api=yes\napi-key=t0ken\nwebserver=yes\nwebserver-address=127.0.0.1\nwebserver-port={web}\nguardian=no\n\
             daemon=no\ncache-ttl=0\nquery-cache-ttl=0\nnegquery-cache-ttl=0\nsecurity-poll-suffix=\n"
        );
        std::fs::write(folder.path().join("pdns.conf"), config).unwrap();
        let config = format!("--config-dir={path}");
        let log = || File::create(folder.path().join("log")).unwrap();
        let mut create = Command::new("pdnsutil");
        create.args([&config, "create-zone", "example.com", "ns.example.com"]).stdout(log()).stderr(log());
        assert!(
            create.status().expect("the Debian packages pdns-server and pdns-backend-lmdb are installed").success()
        );
        let mut command = Command::new("/usr/sbin/pdns_server");
        command.arg(&config).stdin(Stdio::null()).stdout(log()).stderr(log());
        let child = command.spawn().expect("the Debian package pdns-server is installed");
        let dns = ([127, 0, 0, 1], dns).into();
        let mut server = Self { child, folder, dns, url: format!("http://127.0.0.1:{web}") };
        let (zone, started) = (Name::from_ascii("example.com.").unwrap(), Instant::now());
        loop {
            if knot::ask(dns, &zone, RecordType::SOA).is_some() && TcpStream::connect(("127.0.0.1", web)).is_ok() {
                return Some(server);
            }
            if server.child.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(started.elapsed() < DEADLINE, "pdns_server is not ready: {}", server.log());
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn solver(&self, token: &str) -> Cloud {
        let (token, id) = (token.to_owned(), Some(self.url.clone()));
        let settings = Settings { token, id, zone: Some("example.com".to_owned()) };
        Cloud::new("tunnel.example.com", "pdns", settings).unwrap()
    }
}

impl Drop for Pdns {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

#[tokio::test]
async fn base_and_wildcard_values_are_published_together_and_removed_one_by_one() {
    let server = Pdns::start();
    let solver = server.solver("t0ken");
    for value in ["somebody-else", "-base-value", "wildcard-value", "-base-value"] {
        solver.present(value).await.unwrap_or_else(|error| panic!("{error}: {}", server.log()));
    }
    let texts = || knot::texts(server.dns, CHALLENGE).into_iter().map(|(text, _)| text).collect::<Vec<_>>();
    assert_eq!(texts(), ["-base-value", "somebody-else", "wildcard-value"]);
    solver.cleanup("-base-value").await.unwrap();
    solver.cleanup("-base-value").await.unwrap();
    assert_eq!(texts(), ["somebody-else", "wildcard-value"]);
    solver.cleanup("wildcard-value").await.unwrap();
    assert_eq!(texts(), ["somebody-else"]);
}

#[tokio::test]
async fn a_wrong_token_is_an_error_of_the_setup() {
    let server = Pdns::start();
    let error = server.solver("wr0ng").present("value").await.unwrap_err();
    let SolverError::Setup(why) = error else { panic!("{error:?}") };
    assert!(why.contains("pdns does not change") && why.contains("token"), "{why}");
    assert!(!why.contains("wr0ng"), "{why}");
}
