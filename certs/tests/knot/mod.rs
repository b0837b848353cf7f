//! Runs knotd, a real authoritative name server (Debian's package `knot`), on loopback for the time of a test.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test says by panicking that it failed")]
#![allow(unreachable_pub, reason = "it is compiled into several tests")]

use std::fmt::Write as _;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use rustix::process::{Pid, Signal, kill_process};

/// Debian's path, which is not in every user's `PATH`.
const PROGRAM: &str = "/usr/sbin/knotd";
const DEADLINE: Duration = Duration::from_secs(20);

/// A running server that ends with the test.
pub struct Knot {
    child: Child,
    folder: tempfile::TempDir,
    /// Its address for UDP and TCP.
    pub address: SocketAddr,
}

/// A zone: its records in zone-file form, and its lines in the server's configuration.
pub struct Zone<'a> {
    pub name: &'a str,
    pub records: &'a str,
    pub settings: &'a str,
}

impl Knot {
    /// Starts it at a loopback address. `sections` are added to its configuration.
    pub fn start(ip: &str, sections: &str, zones: &[Zone<'_>]) -> Self {
        Self::start_in(&[], ip, sections, zones)
    }

    /// The same with additional environment variables.
    pub fn start_in(environment: &[(&str, &str)], ip: &str, sections: &str, zones: &[Zone<'_>]) -> Self {
        // Another program may take the port that was free.
        for _ in 0..5 {
            let port = free_port(ip);
            if let Some(server) = Self::try_start(environment, (ip, port), sections, zones) {
                return server;
            }
        }
        panic!("knotd does not start");
    }

    /// The same at a given port, which has to be free.
    pub fn try_start(
        environment: &[(&str, &str)],
        at: (&str, u16),
        sections: &str,
        zones: &[Zone<'_>],
    ) -> Option<Self> {
        let (ip, port) = at;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let mut config = format!(
            "server:\n  rundir: \"{path}\"\n  listen: {ip}@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  \
             background-workers: 1\ndatabase:\n  storage: \"{path}\"\nlog:\n  - target: stderr\n    any: info\n{sections}\n"
        );
        config.push_str("zone:\n");
        for zone in zones {
            let Zone { name, records, settings } = zone;
            writeln!(config, "  - domain: {name}\n    storage: \"{path}\"\n    file: {name}.zone\n{settings}").unwrap();
            let soa = format!("$ORIGIN {name}.\n@ 60 IN SOA ns hostmaster 1 3600 600 86400 0\n");
            std::fs::write(folder.path().join(format!("{name}.zone")), soa + records + "\n").unwrap();
        }
        let file = folder.path().join("knot.conf");
        std::fs::write(&file, config).unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(PROGRAM);
        command
            .envs(environment.iter().copied())
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().expect("the Debian package knot is installed");
        let mut server = Self { child, folder, address: (ip.parse::<std::net::IpAddr>().unwrap(), port).into() };
        let started = Instant::now();
        let asked: Vec<Name> = zones.iter().map(|zone| Name::from_ascii(format!("{}.", zone.name)).unwrap()).collect();
        loop {
            if asked
                .iter()
                .all(|name| ask(server.address, name, RecordType::SOA).is_some_and(|answer| !answer.answers.is_empty()))
            {
                return Some(server);
            }
            if let Some(status) = server.child.try_wait().unwrap() {
                eprintln!("knotd has ended with {status}: {}", server.log());
                return None;
            }
            assert!(started.elapsed() < DEADLINE, "knotd is not ready: {}", server.log());
        }
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The texts at a name, sorted, each with its time to live.
    pub fn texts(&self, name: &str) -> Vec<(String, u32)> {
        texts(self.address, name)
    }
}

/// A server's answer to a question over UDP; `None` if it does not come soon.
pub fn ask(server: SocketAddr, name: &Name, kind: RecordType) -> Option<Message> {
    let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(name.clone(), kind));
    socket.send(&query.to_vec().unwrap()).ok()?;
    let mut bytes = [0; 4096];
    let Ok(length) = socket.recv(&mut bytes) else {
        // No server listens yet, so the next try waits a little.
        std::thread::sleep(Duration::from_millis(20));
        return None;
    };
    Some(Message::from_vec(&bytes[..length]).unwrap())
}

/// The texts at a name of a server, sorted, each with its time to live.
pub fn texts(server: SocketAddr, name: &str) -> Vec<(String, u32)> {
    let name = Name::from_ascii(name).unwrap();
    let started = Instant::now();
    let answer = loop {
        if let Some(answer) = ask(server, &name, RecordType::TXT) {
            break answer;
        }
        assert!(started.elapsed() < DEADLINE, "no answer");
    };
    let texts = answer.answers.iter().filter(|record| record.record_type() == RecordType::TXT);
    let mut texts: Vec<_> = texts.map(|record| (record.data.to_string(), record.ttl)).collect();
    texts.sort();
    texts
}

impl Drop for Knot {
    fn drop(&mut self) {
        // Ends it gracefully, so that preloaded libraries can clean up.
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        let _ended_already = kill_process(pid, Signal::TERM);
        let asked = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && asked.elapsed() < DEADLINE {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A port that was free for TCP and UDP a moment ago.
pub fn free_port(ip: &str) -> u16 {
    loop {
        let tcp = TcpListener::bind((ip, 0)).unwrap();
        let port = tcp.local_addr().unwrap().port();
        if UdpSocket::bind((ip, port)).is_ok() {
            return port;
        }
    }
}
