//! `cokd cert`: shows the certificate's state, and requests a new certificate.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use cok_certs::store::{Request, Store};
use cok_certs::unix_now;
use cok_host::say;
use http::{Method, StatusCode};

use super::admin::{Daemon, Unanswered};
use super::exit::{DEFAULT_CONFIG, block_on};
use crate::admin::CERTIFICATE;
use crate::certificates::{CertificateStatus, Tls, stored};
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

pub(super) fn run(command: &CertCommand, config: &Config) -> anyhow::Result<()> {
    match command {
        CertCommand::Status { json, .. } => {
            let shown = status(config)?;
            if *json {
                say!("{}", serde_json::to_string(&shown)?);
            } else {
                say!("{}", text(&shown, unix_now()).trim_end());
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
                say!("asked for; `cokd cert status` shows what comes of it");
            } else {
                say!("asked for; no daemon runs, so it is done once one does");
            }
            Ok(())
        }
    }
}

/// The status that the running daemon knows. Without one, or with an older one, that of the files.
fn status(config: &Config) -> anyhow::Result<CertificateStatus> {
    let mut answered = None;
    block_on(async {
        let daemon = Daemon::of(config, None)?;
        answered = Some(match daemon.ask(Method::GET, CERTIFICATE, Vec::new()).await {
            Ok((StatusCode::OK, body)) => Some(serde_json::from_slice(&body).context("the daemon's answer")?),
            Ok((StatusCode::NOT_FOUND, _)) => None,
            Ok((status, body)) => {
                bail!("the daemon at {daemon} answered {status}: {}", String::from_utf8_lossy(&body).trim())
            }
            Err(Unanswered::Unreachable(error))
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
            {
                None
            }
            Err(Unanswered::Unreachable(error)) => {
                bail!("cannot ask the daemon at {daemon}: {error}; run this as root or as the service's user")
            }
            Err(Unanswered::Lost(error)) => return Err(error.context(format!("the daemon at {daemon}"))),
        });
        Ok(())
    })?;
    if let Some(status) = answered.flatten() {
        return Ok(status);
    }
    let startup = &config.startup;
    stored(&config.certificates, startup.domain.as_str(), &startup.state_dir).map_err(explained)
}

/// Adds advice to a permission error: only the daemon's own user may read its state.
fn explained(error: cok_certs::Error) -> anyhow::Error {
    let denied = matches!(&error, cok_certs::Error::Io { error, .. } if error.kind() == ErrorKind::PermissionDenied);
    if denied { anyhow!("{error}: run this as root or as the service's user") } else { error.into() }
}

/// The fields as text, one line for each known one.
fn text(shown: &CertificateStatus, now: i64) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            // Writing to a string does not fail.
            let _infallible = writeln!(text, "{:<14}{value}", format!("{name}:"));
        }
    };
    let at = |at: Option<i64>| at.map(|at| moment(at, now));
    line("source", Some(shown.source.clone()));
    line("names", Some(if shown.names.is_empty() { "no certificate yet".to_owned() } else { shown.names.join(", ") }));
    line("issuer", shown.issuer.clone());
    line("serial", shown.serial.clone());
    line("valid from", at(shown.not_before));
    line("expires", at(shown.not_after));
    let until = at(shown.authority_not_after).map(|until| format!(", until {until}")).unwrap_or_default();
    line("authority", shown.authority.as_ref().map(|file| format!("{}{until}", file.display())));
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
        let shown = CertificateStatus {
            source: "acme".to_owned(),
            names: vec!["a.example".to_owned(), "*.a.example".to_owned()],
            issuer: Some("CN=Test".to_owned()),
            serial: Some("01".to_owned()),
            not_before: Some(0),
            not_after: Some(90 * 86_400),
            next_renewal: Some(60 * 86_400),
            last_error: Some("refused\nfor good".to_owned()),
            next_try: Some(86_400 + 90),
            managed: Some(true),
            ..CertificateStatus::default()
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
        let none = CertificateStatus { managed: Some(false), ..CertificateStatus::default() };
        let none = super::text(&none, 0);
        assert!(none.contains("no certificate yet") && none.contains("no daemon runs"), "{none}");
        let own = CertificateStatus {
            authority: Some("/state/ca.pem".into()),
            authority_not_after: Some(3 * 86_400),
            ..CertificateStatus::default()
        };
        let own = super::text(&own, 0);
        assert!(own.contains("\nauthority:    /state/ca.pem, until 1970-01-04T00:00:00Z (in 3 days)\n"), "{own}");
    }
}
