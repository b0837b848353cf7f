//! What is in the way between this machine and a tunnel: one check for each thing that can be wrong.
//!
//! It asks as a client does, and stores nothing here: its sessions have instances of their own, so it takes no name from a
//! client that runs. They count for the key's limits while they last. How a report looks is `cli`'s.

mod goodput;
mod network;
mod server;
mod target;

use std::time::Duration;

use serde::Serialize;

use self::network::Network;
use crate::dial::{self, Opened};
use crate::instance::new_id;
use crate::options::ClientOptions;
use crate::target::Target;
use crate::transport::TransportChoice;

/// The most time for the last words to the server.
const GOODBYE: Duration = Duration::from_secs(1);

/// What is to be examined.
#[derive(Debug)]
pub(crate) struct Exam {
    /// The client's settings.
    pub(crate) options: ClientOptions,
    /// Why there is no key, if there is none.
    pub(crate) no_key: Option<NoKey>,
    /// The services, each with its tunnel's name in the file.
    pub(crate) targets: Vec<(Option<String>, Target)>,
    /// Whether to measure goodput.
    pub(crate) measures: bool,
}

/// Why there is no key.
#[derive(Debug)]
pub(crate) struct NoKey {
    pub(crate) why: String,
    /// What to do.
    pub(crate) advice: &'static str,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It is as it should be.
    Ok,
    /// Something is wrong.
    Failed,
    /// It does not apply here, or nothing can be said.
    Skipped,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// Its name, which never changes.
    pub(crate) name: &'static str,
    /// The tunnel of the file that it is about.
    pub(crate) tunnel: Option<String>,
    /// What came of it.
    pub(crate) outcome: Outcome,
    /// What was found.
    pub(crate) detail: String,
    /// What to do.
    pub(crate) advice: Option<String>,
    /// How long it took, if that tells something.
    pub(crate) ms: Option<u64>,
    /// What was measured, in Mbit/s.
    pub(crate) mbit_per_s: Option<f64>,
}

/// The transport that a client would take now.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Chosen {
    pub(crate) transport: &'static str,
    pub(crate) reason: String,
}

impl Check {
    fn new(name: &'static str, outcome: Outcome, detail: impl Into<String>) -> Self {
        Self { name, tunnel: None, outcome, detail: detail.into(), advice: None, ms: None, mbit_per_s: None }
    }

    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, Outcome::Ok, detail)
    }

    fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self::new(name, Outcome::Skipped, why)
    }

    fn failed(name: &'static str, why: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..Self::new(name, Outcome::Failed, why) }
    }

    fn caused(name: &'static str, config: &dial::Config, cause: &dial::Cause) -> Self {
        Self::failed(name, cause.to_string(), cause.advice(dial::User::of(config)))
    }

    fn took(mut self, time: Duration) -> Self {
        self.ms = Some(time.as_millis() as u64);
        self
    }
}

/// Makes all checks, and reports each as soon as it is done. Returns what a client would choose, if it could.
pub(crate) async fn examine(exam: &Exam, mut report: impl FnMut(Check)) -> Option<Chosen> {
    let config = exam.options.dial();
    let found = network::check(&config, &mut report).await;
    server::check_websocket(&config, &found, &mut report).await;
    let chosen = choose(&config, &found).await;
    let reason = chosen.as_ref().map(|opened| (opened.path.is_quic(), opened.reason.clone()));
    let has_session = match (&exam.no_key, chosen) {
        (Some(NoKey { why, advice }), _) => {
            report(Check::failed("key", why.as_str(), *advice));
            false
        }
        (None, None) => {
            report(Check::skipped("key", "the server cannot be reached"));
            false
        }
        (None, Some(opened)) => server::check_key(&exam.options, opened.path, &mut report).await,
    };
    target::check(&exam.targets, &mut report).await;
    if exam.measures {
        goodput::measure(&exam.options, &found, has_session, &mut report).await;
    }
    // A server that is left without a word would keep the connections until it finds out by silence.
    config.quic.say_goodbye(GOODBYE).await;
    let (is_quic, reason) = reason?;
    Some(Chosen { transport: if is_quic { "quic" } else { "ws" }, reason })
}

/// Opens a connection as a client does.
async fn choose(config: &dial::Config, found: &Network) -> Option<Opened> {
    if !found.has_tcp && !found.has_quic {
        return None;
    }
    let opened = match (config.transport, &config.proxy) {
        (TransportChoice::Auto, Some(proxy)) => {
            dial::ws(config).await.map(|path| path.because(format!("QUIC: the proxy {proxy} carries only TCP")))
        }
        (TransportChoice::Auto, None) => dial::race(config).await,
        (TransportChoice::Quic, _) => dial::quic(config).await.map(|path| path.because("chosen by --transport quic")),
        (TransportChoice::Ws, _) => dial::ws(config).await.map(|path| path.because("chosen by --transport ws")),
    };
    opened.ok()
}

/// An instance that no client has.
fn stranger() -> Option<String> {
    new_id().ok()
}
