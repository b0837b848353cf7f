//! The terminal of `cokd top`: the alternate screen, in which each key is read at once. However this ends, the terminal is
//! as it was.

use std::io::{self, IsTerminal as _, Read as _, Write as _, stdin, stdout};
use std::panic;
use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use cok_host::styled::Line;
use parking_lot::Mutex;
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use super::keys::{Key, keys};

/// Shows the alternate screen without a cursor, and the usual one again (xterm's control sequences).
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
/// Begins and ends an update that terminals show at once. Those that do not know it ignore it.
const BEGIN: &str = "\u{1b}[?2026h\u{1b}[H";
const END: &str = "\u{1b}[?2026l";
/// Erases to the end of the line, and to the end of the screen (ECMA-48).
const ERASE_LINE: &str = "\u{1b}[K";
const ERASE_BELOW: &str = "\u{1b}[J";

/// The size of a terminal that does not say.
const USUAL: Size = Size { columns: 79, rows: 24 };
/// The most keys that wait to be handled. More were typed blindly.
const MOST_KEYS: usize = 64;

/// The size of a terminal, without its last column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// Whether there is a terminal for input and output.
pub(super) fn is_there() -> bool {
    stdin().is_terminal() && stdout().is_terminal()
}

/// Its size now.
pub(super) fn size() -> Size {
    let size = tcgetwinsize(stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    // In the last column, terminals differ about where the cursor is.
    size.map_or(USUAL, |size| Size { columns: usize::from(size.ws_col - 1), rows: size.ws_row.into() })
}

/// The terminal while it shows the tunnels. Dropping it restores what was before.
#[derive(Debug)]
pub(super) struct Terminal {
    usual: Arc<Usual>,
    keys: mpsc::Receiver<Key>,
    colours: bool,
}

/// The settings of the terminal before, while they are changed.
#[derive(Debug, Default)]
struct Usual(Mutex<Option<Termios>>);

impl Usual {
    fn change(&self) -> io::Result<()> {
        let mut usual = self.0.lock();
        let mut settings = match &*usual {
            Some(settings) => settings.clone(),
            None => tcgetattr(stdin())?,
        };
        usual.get_or_insert_with(|| settings.clone());
        settings.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &settings)?;
        print(ENTER)
    }

    fn restore(&self) {
        if let Some(settings) = self.0.lock().take() {
            // If the terminal is gone, there is nothing to restore.
            let _gone = print(LEAVE);
            let _gone = tcsetattr(stdin(), OptionalActions::Now, &settings);
        }
    }
}

impl Terminal {
    /// Takes the terminal.
    pub(super) fn enter() -> anyhow::Result<Self> {
        let usual = Arc::<Usual>::default();
        usual.change().context("cannot use this terminal")?;
        let terminal = Self { usual: usual.clone(), keys: read_keys()?, colours: cok_client::logging::has_colours() };
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            usual.restore();
            before(info);
        }));
        Ok(terminal)
    }

    /// The next key. `None` once there are no more.
    pub(super) async fn key(&mut self) -> Option<Key> {
        self.keys.recv().await
    }

    /// Shows these lines, as far as they fit.
    pub(super) fn draw(&mut self, lines: &[Line], size: Size) -> io::Result<()> {
        // The shell has the terminal until the process goes on.
        if self.usual.0.lock().is_none() {
            return Ok(());
        }
        let mut text = String::from(BEGIN);
        for (row, line) in lines.iter().take(size.rows).enumerate() {
            if row > 0 {
                text.push_str("\r\n");
            }
            text.push_str(&line.render(size.columns, self.colours).0);
            text.push_str(ERASE_LINE);
        }
        text.push_str(ERASE_BELOW);
        text.push_str(END);
        print(&text)
    }

    /// Stops the process, as Ctrl-Z does in other programs.
    pub(super) fn suspend(&self) -> io::Result<()> {
        self.usual.restore();
        kill_process(getpid(), Signal::TSTP)?;
        Ok(())
    }

    /// Takes the terminal again after a stop.
    pub(super) fn resume(&self) -> io::Result<()> {
        self.usual.change()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.usual.restore();
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut output = stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Reads keys in a thread of its own, which ends with the process: nothing else can end its wait.
fn read_keys() -> io::Result<mpsc::Receiver<Key>> {
    let (sender, receiver) = mpsc::channel(MOST_KEYS);
    thread::Builder::new().name("keys".to_owned()).spawn(move || {
        let mut bytes = [0; 256];
        loop {
            match stdin().read(&mut bytes) {
                Ok(0) => return,
                Ok(length) => {
                    for key in keys(&bytes[..length]) {
                        if sender.blocking_send(key).is_err() {
                            return;
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    })?;
    Ok(receiver)
}
