//! The panel: what a terminal shows in place of log lines. It is redrawn in its place below the earlier text.
//!
//! A thread of its own draws it, so that a terminal that takes nothing holds up no tunnel. Tasks only change the state.

mod rates;
mod requests;
mod screen;
mod state;
mod terminal;

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};
use std::panic;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};
use time::UtcOffset;

use self::screen::Screen;
use self::state::State;
use self::terminal::Echo;
use super::args::Flags;
use super::overview::Place;
use crate::event::Event;
use crate::logging::{self, LogFormat};

/// The log filter while there is a panel, which shows the rest.
pub(super) const LOG_FILTER: &str = "warn,cok_client::cli=info,cok_client::proxy=error";

/// The least time between two drawings.
const PACE: Duration = Duration::from_millis(60);
/// How often what changes by itself is drawn, such as times.
const TICK: Duration = Duration::from_secs(1);
/// How many ticks the news may take that the process goes on.
const MOST_TICKS: usize = 3;
/// The most log lines that wait for the terminal.
const MOST_LINES: usize = 1000;
/// How long a terminal that takes nothing may hold up the end.
const LAST_DRAWING: Duration = Duration::from_secs(1);

/// What the panel asks for when it draws.
pub(super) struct Sources {
    /// The open tunnels.
    pub(super) places: Box<dyn Fn() -> Vec<Place> + Send>,
    /// The latest round trip to the server.
    pub(super) round_trip: Box<dyn FnMut() -> Option<Duration> + Send>,
    /// The address of the inspector's page, with its token.
    pub(super) inspector: Option<String>,
}

/// Whether the command line and the terminal want a panel.
pub(super) fn is_wanted(flags: &Flags) -> bool {
    let wants_log = flags.no_panel
        || flags.verbosity.is_set()
        || flags.log.is_some()
        || flags.log_format != LogFormat::Auto
        || std::env::var_os("RUST_LOG").is_some();
    !wants_log
        && io::stdout().is_terminal()
        && io::stderr().is_terminal()
        && std::env::var_os("TERM").is_some_and(|kind| !kind.is_empty() && kind != "dumb")
        && terminal::size().is_some()
        && terminal::is_in_use()
}

/// The seconds by which local time is ahead of UTC. Only a process with one thread can ask for it.
pub(super) fn local_offset() -> i64 {
    UtcOffset::current_local_offset().map_or(0, |offset| offset.whole_seconds().into())
}

/// The panel on the terminal. It ends when this is dropped.
pub(super) struct Panel {
    shared: Arc<Shared>,
    /// Ends with the drawing thread.
    ended: mpsc::Receiver<()>,
    #[cfg(unix)]
    signals: tokio::task::JoinHandle<()>,
}

struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
    echo: Echo,
}

struct Inner {
    state: State,
    /// Log lines to print above the panel.
    lines: VecDeque<String>,
    is_changed: bool,
    /// Other text stands below the panel, so the next one comes below that.
    is_overwritten: bool,
    /// The user has asked to stop the process.
    suspends: bool,
    /// The panel itself has stopped the process, and knows that it goes on.
    is_suspended: bool,
    ends: bool,
}

impl Panel {
    /// Draws the panel from now on. Log lines appear above it. Must be called in the runtime.
    pub(super) fn start(program: &str, server: String, offset: i64, sources: Sources) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                state: State::new(program, server, offset, Instant::now()).with_inspector(sources.inspector.clone()),
                lines: VecDeque::new(),
                is_changed: true,
                is_overwritten: false,
                suspends: false,
                is_suspended: false,
                ends: false,
            }),
            changed: Condvar::new(),
            echo: Echo::default(),
        });
        #[cfg(unix)]
        let signals = tokio::spawn(follow_signals(shared.clone())?);
        #[cfg(unix)]
        follow_quit(shared.clone())?;
        let lines = shared.clone();
        // Earlier lines stand above the panel.
        logging::flush();
        logging::divert(Some(Box::new(move |line: &str| lines.print(line))));
        let hooked = shared.clone();
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            hooked.echo.restore();
            if let Some(mut inner) = hooked.inner.try_lock() {
                inner.is_overwritten = true;
            }
            before(info);
        }));
        let (end, ended) = mpsc::channel();
        let drawing = shared.clone();
        thread::Builder::new().name("panel".to_owned()).spawn(move || {
            drawing.run(sources);
            drop(end);
        })?;
        Ok(Self {
            shared,
            ended,
            #[cfg(unix)]
            signals,
        })
    }

    /// What takes events in, without waiting for the terminal.
    pub(super) fn observer(&self) -> impl Fn(&Event) + Send + Sync + 'static {
        let shared = self.shared.clone();
        move |event| shared.change(|inner| inner.state.note(event, Instant::now(), SystemTime::now()))
    }
}

impl Drop for Panel {
    fn drop(&mut self) {
        self.shared.change(|inner| {
            inner.state.stopped();
            inner.ends = true;
        });
        let _ended = self.ended.recv_timeout(LAST_DRAWING);
        self.shared.echo.restore();
        logging::divert(None);
        #[cfg(unix)]
        self.signals.abort();
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.inner.lock();
        change(&mut inner);
        inner.is_changed = true;
        self.changed.notify_one();
    }

    fn print(&self, line: &str) {
        self.change(|inner| {
            if inner.lines.len() == MOST_LINES {
                inner.lines.pop_front();
            }
            inner.lines.push_back(line.trim_end_matches('\n').to_owned());
        });
    }

    /// Draws until the panel ends.
    fn run(&self, mut sources: Sources) {
        let colours = logging::has_colours();
        let mut screen = Screen::default();
        loop {
            let (places, round_trip) = ((sources.places)(), (sources.round_trip)());
            let is_in_use = terminal::is_in_use();
            if is_in_use {
                self.echo.off();
            }
            let size = terminal::size().filter(|_| is_in_use);
            let mut inner = self.inner.lock();
            (inner.is_changed, inner.suspends) = (false, false);
            if std::mem::take(&mut inner.is_overwritten) {
                screen.leave();
            }
            let above: Vec<_> = inner.lines.drain(..).collect();
            inner.state.set_round_trip(round_trip);
            let (lines, ends) = match size {
                Some(size) => (inner.state.lines(&places, size, Instant::now()), inner.ends),
                None => (Vec::new(), inner.ends),
            };
            drop(inner);
            let text = if let Some((width, _)) = size {
                screen.draw(&above, &lines, width, colours)
            } else {
                screen.leave();
                above.iter().flat_map(|line| [line.as_str(), "\r\n"]).collect()
            };
            // The terminal may be gone. The tunnels stay up all the same.
            let _gone = io::stderr().write_all(text.as_bytes());
            if ends {
                return;
            }
            thread::sleep(PACE);
            if self.wait() {
                self.echo.restore();
                screen.leave();
                self.suspend();
            }
        }
    }

    /// Stops the process until somebody lets it go on. The signal may reach another thread first, so this one waits.
    fn suspend(&self) {
        let mut inner = self.inner.lock();
        inner.is_suspended = true;
        terminal::stop_process();
        // The time that the process stands still counts as well.
        for _ in 0..MOST_TICKS {
            if !inner.is_suspended {
                break;
            }
            let _timed_out = self.changed.wait_for(&mut inner, TICK);
        }
        // If the process did not stop, none says that it goes on.
        inner.is_suspended = false;
    }

    /// Waits for a change, or a tick. Returns whether the process is to stop.
    fn wait(&self) -> bool {
        let mut inner = self.inner.lock();
        if !inner.is_changed {
            let _timed_out = self.changed.wait_for(&mut inner, TICK);
        }
        inner.suspends
    }
}

/// Follows the terminal's size, and when the process stops and goes on. Drawn lines stay above what the shell has written.
#[cfg(unix)]
fn follow_signals(shared: Arc<Shared>) -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    // Their numbers on each system: tokio names no kinds for them.
    let stop = SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw());
    let go_on = SignalKind::from_raw(rustix::process::Signal::CONT.as_raw());
    let (mut stop, mut go_on, mut resize) = (signal(stop)?, signal(go_on)?, signal(SignalKind::window_change())?);
    Ok(async move {
        loop {
            tokio::select! {
                Some(()) = stop.recv() => shared.change(|inner| inner.suspends = true),
                Some(()) = go_on.recv() => shared.change(|inner| {
                    inner.is_overwritten |= !std::mem::take(&mut inner.is_suspended);
                }),
                Some(()) = resize.recv() => shared.change(|_| {}),
                else => return,
            }
        }
    })
}

/// Lets SIGQUIT end the process as usual, with a terminal that echoes again. A thread of its own follows it, for processes that
/// hang.
#[cfg(unix)]
fn follow_quit(shared: Arc<Shared>) -> io::Result<()> {
    use signal_hook::{consts::SIGQUIT, iterator::Signals, low_level::emulate_default_handler};
    let mut quits = Signals::new([SIGQUIT])?;
    thread::Builder::new().name("quit".to_owned()).spawn(move || {
        for quit in quits.forever() {
            shared.echo.restore();
            // It fails only for signals that have no default.
            let _ended = emulate_default_handler(quit);
        }
    })?;
    Ok(())
}
