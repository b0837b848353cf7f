//! The log: structured entries for the journal, or lines on standard error, as text or as JSON.

mod fields;
mod filter;
mod journal;
mod queue;

use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use clap::ValueEnum;
use parking_lot::RwLock;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::fields::MessageFirst;
pub use self::filter::{FilterError, filters, parse_filter, set_filter};
use self::queue::Queue;

/// How long standard error may hold up the end of the process.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The lines for standard error.
static QUEUE: Queue = Queue::new();

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
    let subscriber = tracing_subscriber::registry().with(filter::layer(default_filter));
    if format == LogFormat::Journal || (format == LogFormat::Auto && journal::is_standard_error()) {
        match journal::layer(name) {
            Ok(layer) => {
                // This fails only if the process logs already, which then goes on.
                let _second = subscriber.with(layer).try_init();
                return;
            }
            Err(error) => complain(&format!("{name}: there is no journal: {error}; the log goes to standard error")),
        }
    }
    QUEUE.open();
    let lines = fmt::layer().log_internal_errors(false).with_target(false);
    // This fails only if the process logs already, which then goes on.
    let _second = if format == LogFormat::Json {
        let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
        subscriber.with(lines.with_writer(|| Stderr)).try_init()
    } else {
        let colours = has_colours();
        let lines = lines.fmt_fields(MessageFirst).with_ansi(colours);
        subscriber.with(lines.with_writer(move || Lines { to: Stderr, colours })).try_init()
    };
}

/// Takes a line in place of standard error.
pub(crate) type Diversion = Box<dyn Fn(&str) + Send + Sync>;

static DIVERSION: RwLock<Option<Diversion>> = RwLock::new(None);

/// Leads lines of text elsewhere than to standard error, or there again.
pub(crate) fn divert(diversion: Option<Diversion>) {
    *DIVERSION.write() = diversion;
}

/// Waits until the lines so far are on standard error, for a second at most. To be called before the process ends.
pub fn flush() {
    QUEUE.flush(LAST_LINES);
}

/// Whether standard error shows colours (no-color.org).
pub fn has_colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Standard error, or what takes its lines. Once the log has started, lines do not wait for it.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        match &*DIVERSION.read() {
            Some(divert) => {
                divert(&String::from_utf8_lossy(text));
                Ok(text.len())
            }
            None if QUEUE.push(text) => Ok(text.len()),
            None => io::stderr().write(text),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer of text that takes one line with each write. It escapes control characters, since lines quote peers: their words
/// must not look like other lines, and must not control a terminal.
struct Lines<W> {
    to: W,
    /// Lets escape characters pass. [`MessageFirst`] has then escaped all but those of colours.
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

/// Prints an error on standard error, line by line. In the journal, each line becomes an entry with the priority of an
/// error (sd-daemon(3)).
pub fn complain(why: &str) {
    let level = if journal::is_standard_error() { "<3>" } else { "" };
    for line in why.lines() {
        // If standard error is closed, there is no other place for the line.
        let _closed = Stderr.write_all(format!("{level}{line}\n").as_bytes());
    }
    flush();
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
