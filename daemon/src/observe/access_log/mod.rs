//! The access log: one line a request, at its end. Exchanges that last have a line at their beginning as well.
//!
//! A request makes its line, puts it into a queue and goes on. A thread writes the lines. If it cannot keep up, or the disk
//! is full, lines are lost and counted, and requests go on.

mod entry;
mod journal;
mod json;
mod losses;
mod output;
mod queue;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prometheus_client::metrics::counter::Counter;
use tracing::warn;

use self::entry::Moment;
use self::losses::Losses;
use self::output::Output;
use self::queue::Queue;
use super::record::Record;

/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Settings of the access log. A reload changes all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Where lines go. Default: nowhere. Each line costs a few microseconds of processor time, and some 400 bytes.
    pub(crate) to: Option<Destination>,
    /// Whether lines have the queries of requests. Default false: queries may hold secrets.
    pub(crate) queries: bool,
    /// How many of a hundred requests have a line. 1 to 100, default 100. Failed ones have one in any case.
    pub(crate) sample: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { to: None, queries: false, sample: 100 }
    }
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The journal of systemd, as entries with fields.
    Journal,
    /// Standard error, as JSON.
    StandardError,
    /// The end of this file, as JSON. It is opened again with each reload, so that it can be rotated.
    File(PathBuf),
}

/// The access log.
#[derive(Debug, Default)]
pub(crate) struct AccessLog {
    live: ArcSwapOption<Live>,
    losses: Arc<Losses>,
}

/// An access log that is on.
#[derive(Debug)]
struct Live {
    config: Config,
    to: Destination,
    queue: Arc<Queue>,
}

/// Settings whose destination is open.
#[derive(Debug)]
pub(crate) struct Prepared {
    config: Config,
    open: Option<(Destination, Output)>,
}

impl AccessLog {
    /// An access log that is off. It counts lost lines with `lost`.
    pub(crate) fn new(lost: Counter) -> Self {
        Self { live: ArcSwapOption::empty(), losses: Arc::new(Losses::new(lost)) }
    }

    /// Begins with these settings. A file that cannot be opened is tried again later: traffic needs no log.
    pub(crate) fn start(&self, config: Config) {
        let open = config.to.clone().map(|to| {
            let output = Output::open(&to).unwrap_or_else(|error| {
                let shown = to.shown();
                warn!(event = "no_access_log", %error, "no access log: cannot open {shown}: {error}; it is tried again");
                Output::closed(&to)
            });
            (to, output)
        });
        self.apply(Prepared { config, open });
    }

    /// Opens what new settings need, and changes nothing yet.
    pub(crate) fn prepare(config: &Config) -> io::Result<Prepared> {
        let open = config.to.clone().map(|to| Ok::<_, io::Error>((to.clone(), Output::open(&to)?))).transpose()?;
        Ok(Prepared { config: config.clone(), open })
    }

    /// Changes the settings. Lines that wait go to where they would have gone before.
    pub(crate) fn apply(&self, prepared: Prepared) {
        let Prepared { config, open } = prepared;
        let Some((to, output)) = open else { return self.live.store(None) };
        let current = self.live.load_full().filter(|live| live.to == to);
        let queue = match current {
            Some(live) => {
                live.queue.reopen(output);
                live.queue.clone()
            }
            None => match Queue::start(output, self.losses.clone()) {
                Ok(queue) => Arc::new(queue),
                Err(error) => {
                    warn!(event = "no_access_log", %error, "no access log: cannot start its thread: {error}");
                    return self.live.store(None);
                }
            },
        };
        self.live.store(Some(Arc::new(Live { config, to, queue })));
    }

    /// Whether there are lines at all.
    pub(crate) fn is_on(&self) -> bool {
        self.live.load().is_some()
    }

    /// A request is over.
    pub(crate) fn finished(&self, record: &Record) {
        self.note(record, if record.lasting.is_some() { Moment::Ended } else { Moment::Request });
    }

    /// The response of an exchange that lasts has begun.
    pub(crate) fn began_lasting(&self, record: &Record) {
        self.note(record, Moment::Began);
    }

    fn note(&self, record: &Record, moment: Moment) {
        let live = self.live.load();
        let Some(live) = &*live else { return };
        if live.wants(record) {
            live.queue.push(live.line(record, moment));
        }
    }

    /// Writes the lines so far, for a second at most. To be called before the process ends.
    pub(crate) fn flush(&self) {
        if let Some(live) = &*self.live.load() {
            live.queue.flush(LAST_LINES);
        }
    }
}

impl Live {
    /// Whether a request has a line. Both lines of an exchange that lasts are there, or none, unless it fails.
    fn wants(&self, record: &Record) -> bool {
        !record.is_session && (record.id % 100 < u64::from(self.config.sample) || has_failed(record))
    }

    fn line(&self, record: &Record, moment: Moment) -> Vec<u8> {
        match self.to {
            Destination::Journal => journal::entry(record, moment, self.config.queries),
            Destination::StandardError | Destination::File(_) => json::line(record, moment, self.config.queries),
        }
    }
}

impl Destination {
    /// Its name for people.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Journal => "the journal".to_owned(),
            Self::StandardError => "standard error".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// Whether the daemon or the service has failed a request.
fn has_failed(record: &Record) -> bool {
    use super::Ending::{Broken, Evicted, Failed};
    record.status.is_some_and(|status| status.is_server_error())
        || matches!(record.ending, Some(Failed(_) | Broken(_) | Evicted))
}

#[cfg(test)]
mod tests;
