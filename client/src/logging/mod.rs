//! Logs: structured to the journal where there is one, else on standard error, as text for people or as one JSON object a
//! line.

mod told;

use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::MetadataExt as _;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::told::Told;

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
    // A terminal that is closed takes no lines, which is no reason to fail.
    let subscriber = tracing_subscriber::fmt().log_internal_errors(false).with_env_filter(filter);
    let subscriber = subscriber.with_writer(io::stderr).with_target(false);
    // As above.
    let _second = if format == LogFormat::Json {
        subscriber.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let subscriber = subscriber.fmt_fields(Told).with_ansi(colours);
        subscriber.with_writer(move || Lines { to: io::stderr(), colours }).try_init()
    };
}

/// Text of which each write is one line. Control characters in it are escaped: what peers have said is quoted there, and must
/// neither look like lines of its own nor command a terminal.
struct Lines<W> {
    to: W,
    /// Whether there are colours. [`Told`] has then escaped all other escape characters already.
    colours: bool,
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let (text, end) = match line.strip_suffix(b"\n") {
            Some(text) => (text, "\n"),
            None => (line, ""),
        };
        let mut escaped = String::with_capacity(line.len());
        for c in String::from_utf8_lossy(text).chars() {
            if c.is_control() && !(self.colours && c == '\u{1b}') {
                escaped.extend(c.escape_default());
            } else {
                escaped.push(c);
            }
        }
        escaped.push_str(end);
        self.to.write_all(escaped.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Says on standard error why nothing comes of what was asked for, each line for itself. Where that leads to the journal,
/// they are errors there (sd-daemon(3)).
pub fn complain(why: &str) {
    let level = if leads_to_journal() { "<3>" } else { "" };
    for line in why.lines() {
        // Standard error may be closed, and there is no other place for it.
        let _closed = writeln!(io::stderr(), "{level}{line}");
    }
}

/// As systemd.exec(5) has it: `JOURNAL_STREAM` names the device and inode of the journal's socket. A program whose
/// standard error was sent elsewhere finds another one there.
fn leads_to_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|data| named == format!("{}:{}", data.dev(), data.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one() {
        let said = "reason=bye\n2026-01-01 INFO tunnel online \u{1b}[2J \u{9b}\t caf\u{e9}\n";
        for (colours, escape) in [(false, "\\u{1b}"), (true, "\u{1b}")] {
            let mut log = Lines { to: Vec::new(), colours };
            log.write_all(said.as_bytes()).unwrap();
            let line = format!("reason=bye\\n2026-01-01 INFO tunnel online {escape}[2J \\u{{9b}}\\t caf\u{e9}\n");
            assert_eq!(String::from_utf8(log.to).unwrap(), line);
        }
    }
}
