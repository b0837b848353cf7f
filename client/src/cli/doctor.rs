//! `cok-client doctor`: says what is in the way of a tunnel, and what to do.

use std::process::ExitCode;

use anyhow::Context as _;
use cok_host::say;
use serde::Serialize;

use super::CHATTY;
use super::args::Args;
use super::failure::{FAILED, Usage};
use crate::doctor::{Check, Chosen, Outcome, examine};
use crate::logging::{self, LogFormat};
use crate::text::quoted;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    args: Args,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Leave out the measurement of goodput, which takes 3 s for each transport
    #[arg(long)]
    no_goodput: bool,
}

impl DoctorArgs {
    /// How a mistake in the arguments is printed.
    pub(super) fn log_format(&self) -> LogFormat {
        self.args.flags.log_format
    }
}

/// The report, as `--json` prints it. Fields may be added; none changes its meaning.
#[derive(Serialize)]
struct Report {
    version: &'static str,
    server: String,
    /// Nothing has failed.
    ok: bool,
    checks: Vec<Check>,
    /// The transport that a client takes now; none if it cannot connect.
    chosen: Option<Chosen>,
}

/// Makes all checks and prints them. The exit code is 1 if any has failed.
pub(super) fn run(doctor: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let DoctorArgs { args, json, no_goodput } = doctor;
    // The report says what goes wrong, so without -v there is no log.
    logging::start("cok-client", args.flags.log_format, args.flags.verbosity.filter("off", CHATTY));
    let mut exam = args.invocation().and_then(|invocation| invocation.exam()).map_err(Usage::of)?;
    exam.measures = !no_goodput;
    let server = exam.options.server.to_string();
    if !json {
        say!("  {:<15}{server}", "Server");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let mut checks = Vec::new();
    let chosen = runtime.block_on(examine(&exam, |check| {
        if !json {
            say!("{}", shown(&check));
        }
        checks.push(check);
    }));
    // A lookup of a name may still block a thread.
    runtime.shutdown_background();
    let ok = checks.iter().all(|check| check.outcome != Outcome::Failed);
    if *json {
        let report = Report { version: env!("CARGO_PKG_VERSION"), server, ok, checks, chosen };
        say!("{}", serde_json::to_string(&report)?);
    } else {
        match chosen {
            Some(Chosen { transport, reason }) => say!("  {:<15}{transport}: {}", "Transport", quoted(&reason)),
            None => say!("  {:<15}none: a client cannot connect", "Transport"),
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// A check in one line, with what to do in the next.
fn shown(check: &Check) -> String {
    let mark = match check.outcome {
        Outcome::Ok => '✓',
        Outcome::Failed => '✗',
        Outcome::Skipped => '–',
    };
    let tunnel = check.tunnel.as_ref().map_or_else(String::new, |tunnel| format!("{}: ", quoted(tunnel)));
    let time = check.ms.map_or_else(String::new, |ms| format!(" ({ms} ms)"));
    let line = format!("{mark} {:<15}{tunnel}{}{time}", title(check.name), quoted(&check.detail));
    match &check.advice {
        Some(advice) => format!("{line}\n  {:<15}→ {}", "", quoted(advice)),
        None => line,
    }
}

/// A check's name for people.
fn title(name: &'static str) -> &'static str {
    match name {
        "dns" => "DNS",
        "ipv4" => "IPv4",
        "ipv6" => "IPv6",
        "tcp" => "TCP",
        "udp" => "UDP",
        "quic" => "QUIC",
        "quic_echo" => "QUIC echo",
        "path_mtu" => "Path MTU",
        "proxy" => "Proxy",
        "websocket" => "WebSocket",
        "clock" => "Clock",
        "trust" => "Trust",
        "key" => "Key",
        "target" => "Target",
        "goodput_quic" => "Speed, QUIC",
        "goodput_ws" => "Speed, ws",
        other => other,
    }
}
