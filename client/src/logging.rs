//! Logs: structured to the journal where there is one, else on standard error, as text for people or as one JSON object a
//! line.

use std::os::unix::fs::MetadataExt as _;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What the fields of an entry begin with in the journal, so that they can't pass for those of others: `COK_EVENT`.
const FIELD_PREFIX: &str = "COK";

/// Where log lines go, and how they look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// To the journal if standard error leads there, else as text
    #[default]
    Auto,
    /// To the journal, with fields and priorities
    Journal,
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Starts logging as `name`; `RUST_LOG` overrides `default_filter`. Only the first call of a process counts.
pub fn start(name: &str, format: LogFormat, default_filter: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_filter));
    if format == LogFormat::Journal || (format == LogFormat::Auto && leads_to_journal()) {
        match tracing_journald::layer() {
            Ok(layer) => {
                let layer =
                    layer.with_field_prefix(Some(FIELD_PREFIX.to_owned())).with_syslog_identifier(name.to_owned());
                // Fails only if a subscriber is there already, which then goes on.
                let _second = tracing_subscriber::registry().with(filter).with(layer).try_init();
                return;
            }
            Err(error) => complain(&format!("{name}: there is no journal: {error}; the log goes to standard error")),
        }
    }
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // As above.
    let _second = if format == LogFormat::Json {
        subscriber.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        subscriber.try_init()
    };
}

/// Says on standard error why nothing comes of what was asked for, each line for itself. Where that leads to the journal,
/// they are errors there (sd-daemon(3)).
pub fn complain(why: &str) {
    let level = if leads_to_journal() { "<3>" } else { "" };
    for line in why.lines() {
        eprintln!("{level}{line}");
    }
}

/// As systemd.exec(5) has it: `JOURNAL_STREAM` names the device and inode of the journal's socket. A program whose
/// standard error was sent elsewhere finds another one there.
fn leads_to_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|data| named == format!("{}:{}", data.dev(), data.ino()))
}
