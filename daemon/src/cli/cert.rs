//! `cokd cert`: shows the certificate's state, and requests a new certificate.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use cok_certs::acme::{self, Status};
use cok_certs::files::{self, Facts};
use cok_certs::store::{Request, Store};
use cok_certs::{Authority, unix_now};
use serde::Serialize;

use super::exit::DEFAULT_CONFIG;
use crate::certificates::{AUTHORITY, Tls, names};
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum CertCommand {
    /// Show names, issuer, expiry, the next renewal and the last error
    Status {
        #[command(flatten)]
        file: FileArgs,
        /// Print one JSON object; times are in seconds since 1970
        #[arg(long)]
        json: bool,
    },
    /// Have the running daemon get a new certificate now
    Renew {
        #[command(flatten)]
        file: FileArgs,
        /// First give the account at the ACME server a new key
        #[arg(long)]
        new_account_key: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct FileArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

impl CertCommand {
    pub(super) fn file(&self) -> &PathBuf {
        match self {
            Self::Status { file, .. } | Self::Renew { file, .. } => &file.config,
        }
    }
}

/// The fields that are shown, flat for scripts. Unknown ones are null.
#[derive(Debug, Default, Serialize)]
struct Shown {
    source: &'static str,
    names: Vec<String>,
    issuer: Option<String>,
    serial: Option<String>,
    not_before: Option<i64>,
    not_after: Option<i64>,
    next_renewal: Option<i64>,
    next_try: Option<i64>,
    last_try: Option<i64>,
    last_error: Option<String>,
    failures: Option<u32>,
    requested: Option<bool>,
    managed: Option<bool>,
}

#[expect(clippy::print_stdout, reason = "the status is what the command is for")]
pub(super) fn run(command: &CertCommand, config: &Config) -> anyhow::Result<()> {
    match command {
        CertCommand::Status { json, .. } => {
            let shown = status(config)?;
            if *json {
                println!("{}", serde_json::to_string(&shown)?);
            } else {
                print!("{}", text(&shown, unix_now()));
            }
            Ok(())
        }
        CertCommand::Renew { new_account_key, .. } => {
            let Tls::Acme(acme) = &config.certificates.source else {
                bail!(
                    "certificates are renewed with [tls] mode = \"acme\" only; other ones are read again when they change"
                );
            };
            let store = Store::existing(&config.startup.state_dir, &acme.directory).map_err(explained)?;
            let store = store.context("no daemon has run here yet")?;
            if *new_account_key {
                store.request(Request::Rollover).map_err(explained)?;
            }
            store.request(Request::Renewal).map_err(explained)?;
            if store.is_held().map_err(explained)? {
                println!("asked for; `cokd cert status` shows what comes of it");
            } else {
                println!("asked for; no daemon runs, so it is done once one does");
            }
            Ok(())
        }
    }
}

fn status(config: &Config) -> anyhow::Result<Shown> {
    let names = names(config.startup.domain.as_str());
    Ok(match &config.certificates.source {
        Tls::Acme(acme) => {
            let covered = names.each_ref().map(String::as_str);
            let status =
                acme::status(&config.startup.state_dir, &acme.directory, &covered, unix_now()).map_err(explained)?;
            let Status { certificate, next_renewal, next_try, last_try, last_error, failures, requested, managed } =
                status;
            Shown {
                next_renewal,
                next_try: Some(next_try),
                last_try,
                last_error,
                failures: Some(failures),
                requested: Some(requested),
                managed: Some(managed),
                ..Shown::of("acme", certificate)
            }
        }
        Tls::Files { cert, .. } => Shown::of("files", Some(files::first_facts(cert)?)),
        // The daemon keeps the key in memory, and the certificate in a file as well.
        Tls::SelfSigned => {
            let file = Authority::issued_file(&config.startup.state_dir.join(AUTHORITY));
            if file.try_exists()? {
                Shown::of("self-signed", Some(files::first_facts(&file)?))
            } else {
                Shown { names: names.to_vec(), ..Shown::of("self-signed", None) }
            }
        }
    })
}

/// Adds advice to a permission error: only the daemon's own user may read its state.
fn explained(error: cok_certs::Error) -> anyhow::Error {
    let denied = matches!(&error, cok_certs::Error::Io { error, .. } if error.kind() == ErrorKind::PermissionDenied);
    if denied { anyhow!("{error}: run this as root or as the service's user") } else { error.into() }
}

impl Shown {
    fn of(source: &'static str, facts: Option<Facts>) -> Self {
        let Some(Facts { names, issuer, serial, not_before, not_after }) = facts else {
            return Self { source, ..Self::default() };
        };
        Self {
            source,
            names,
            issuer: Some(issuer),
            serial: Some(serial),
            not_before: Some(not_before),
            not_after: Some(not_after),
            ..Self::default()
        }
    }
}

/// The fields as text, one line for each known one.
fn text(shown: &Shown, now: i64) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            // Writing to a string does not fail.
            let _infallible = writeln!(text, "{:<14}{value}", format!("{name}:"));
        }
    };
    let at = |at: Option<i64>| at.map(|at| moment(at, now));
    line("source", Some(shown.source.to_owned()));
    line("names", Some(if shown.names.is_empty() { "no certificate yet".to_owned() } else { shown.names.join(", ") }));
    line("issuer", shown.issuer.clone());
    line("serial", shown.serial.clone());
    line("valid from", at(shown.not_before));
    line("expires", at(shown.not_after));
    line("next renewal", at(shown.next_renewal));
    line("last try", at(shown.last_try));
    line("last error", shown.last_error.as_ref().map(|error| error.replace('\n', " ")));
    if shown.last_error.is_some() || shown.names.is_empty() {
        line("next try", at(shown.next_try));
    }
    if shown.requested == Some(true) {
        line("asked for", Some("a new certificate".to_owned()));
    }
    if shown.managed == Some(false) {
        line("managed", Some("no daemon runs, so nothing is renewed".to_owned()));
    }
    text
}

/// `2027-01-31T12:00:00Z (in 66 days)`
fn moment(at: i64, now: i64) -> String {
    let Some(time) = u64::try_from(at).ok().and_then(|at| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at)))
    else {
        return at.to_string();
    };
    let distance = distance(at.abs_diff(now));
    let relation = match at.cmp(&now) {
        std::cmp::Ordering::Less => format!("{distance} ago"),
        std::cmp::Ordering::Equal => "now".to_owned(),
        std::cmp::Ordering::Greater => format!("in {distance}"),
    };
    format!("{} ({relation})", humantime::format_rfc3339_seconds(time))
}

/// Formats a duration in the largest unit of which it has at least two.
fn distance(seconds: u64) -> String {
    match seconds {
        172_800.. => format!("{} days", seconds / 86_400),
        7200.. => format!("{} hours", seconds / 3600),
        120.. => format!("{} minutes", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_moments_and_what_is_wrong() {
        let facts = Facts {
            names: vec!["a.example".to_owned(), "*.a.example".to_owned()],
            issuer: "CN=Test".to_owned(),
            serial: "01".to_owned(),
            not_before: 0,
            not_after: 90 * 86_400,
        };
        let shown = Shown {
            next_renewal: Some(60 * 86_400),
            last_error: Some("refused\nfor good".to_owned()),
            next_try: Some(86_400 + 90),
            managed: Some(true),
            ..Shown::of("acme", Some(facts))
        };
        let text = text(&shown, 86_400);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "source:       acme",
                "names:        a.example, *.a.example",
                "issuer:       CN=Test",
                "serial:       01",
                "valid from:   1970-01-01T00:00:00Z (24 hours ago)",
                "expires:      1970-04-01T00:00:00Z (in 89 days)",
                "next renewal: 1970-03-02T00:00:00Z (in 59 days)",
                "last error:   refused for good",
                "next try:     1970-01-02T00:01:30Z (in 90 s)",
            ]
        );
        let none = super::text(&Shown { managed: Some(false), ..Shown::of("acme", None) }, 0);
        assert!(none.contains("no certificate yet") && none.contains("no daemon runs"), "{none}");
    }
}
