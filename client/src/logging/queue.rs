//! Lines on their way to standard error. A thread of its own writes them, so that a pipe that is not read, or a terminal that is
//! held, stops no traffic.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing::warn;

/// The most bytes that wait. Lines that come while there is no room are lost, and counted.
const MOST: usize = 1 << 20;
/// The most bytes of one write. A pipe takes as many without mixing them with what others write (POSIX's `PIPE_BUF`, which
/// Linux has at 4096).
const ONE_WRITE: usize = 4096;

/// Text that waits for its writer.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    text: Vec<u8>,
    /// Lines for which there was no room, since the last count.
    lost: u64,
    /// A thread takes the text.
    is_open: bool,
    is_writing: bool,
}

impl Queue {
    pub(super) const fn new() -> Self {
        let state = State { text: Vec::new(), lost: 0, is_open: false, is_writing: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Has a thread write to standard error from now on. Without one, `push` takes nothing.
    pub(super) fn open(&'static self) {
        let mut state = self.state.lock();
        if !state.is_open {
            let thread = thread::Builder::new().name("log".to_owned()).spawn(|| self.write_to(io::stderr()));
            state.is_open = thread.is_ok();
        }
    }

    /// Takes a line, without waiting. False if there is no thread that would write it.
    pub(super) fn push(&self, line: &[u8]) -> bool {
        let mut state = self.state.lock();
        if !state.is_open {
            return false;
        }
        if state.text.len() + line.len() > MOST {
            state.lost += 1;
        } else {
            state.text.extend_from_slice(line);
            self.changed.notify_all();
        }
        true
    }

    /// Waits until all text is written, but not longer than this.
    pub(super) fn flush(&self, most: Duration) {
        let end = Instant::now() + most;
        let mut state = self.state.lock();
        while state.is_open && (state.is_writing || !state.text.is_empty()) {
            if self.changed.wait_until(&mut state, end).timed_out() {
                return;
            }
        }
    }

    /// Writes text as it comes, without end. Fails never: without its log, the program goes on.
    fn write_to(&self, mut to: impl Write) {
        let mut text = Vec::new();
        loop {
            let mut state = self.state.lock();
            state.is_writing = false;
            self.changed.notify_all();
            while state.text.is_empty() {
                self.changed.wait(&mut state);
            }
            text.clear();
            std::mem::swap(&mut state.text, &mut text);
            let lost = std::mem::take(&mut state.lost);
            state.is_writing = true;
            drop(state);
            for part in parts(&text) {
                let _closed = to.write_all(part);
            }
            if lost > 0 {
                warn!(
                    event = "log_lost",
                    lines = lost,
                    "{lost} lines of the log are lost: standard error did not take them in time"
                );
            }
        }
    }
}

/// Cuts text into parts of whole lines, no longer than one write if its lines are not.
fn parts(mut text: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let room = text.get(..ONE_WRITE).unwrap_or(text);
        let is_end = |byte: &u8| *byte == b'\n';
        let end =
            room.iter().rposition(is_end).or_else(|| text.iter().position(is_end)).map_or(text.len(), |at| at + 1);
        let (part, rest) = text.split_at_checked(end)?;
        text = rest;
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// Waits until each write is taken.
    struct Slow(SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.send(data.to_vec()).map_err(io::Error::other)?;
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Arc<Queue>, Receiver<Vec<u8>>) {
        let (queue, (sender, receiver)) = (Arc::new(Queue::new()), sync_channel(0));
        queue.state.lock().is_open = true;
        let writing = queue.clone();
        thread::spawn(move || writing.write_to(Slow(sender)));
        (queue, receiver)
    }

    #[test]
    fn a_writer_that_takes_nothing_holds_up_no_line() {
        let (queue, receiver) = slow();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        // The writer takes the first line, and holds it until it is received.
        assert!(queue.push(&line));
        while !queue.state.lock().is_writing {
            thread::yield_now();
        }
        let many = 2 * MOST / line.len();
        for _ in 0..many {
            assert!(queue.push(&line));
        }
        queue.flush(Duration::from_millis(1));
        let lost = queue.state.lock().lost as usize;
        assert!(lost > 0);
        let mut taken = 0;
        while taken < (1 + many - lost) * line.len() {
            taken += receiver.recv().unwrap().len();
        }
        queue.flush(Duration::from_secs(60));
        assert!(!queue.state.lock().is_writing && receiver.try_recv().is_err());
    }

    #[test]
    fn nothing_is_taken_without_a_thread() {
        let queue = Queue::new();
        assert!(!queue.push(b"x\n"));
        queue.flush(Duration::from_secs(60));
    }

    #[test]
    fn writes_are_whole_lines() {
        let line = [&[b'x'; 2999][..], b"\n"].concat();
        let long = [&[b'y'; 2 * ONE_WRITE][..], b"\n"].concat();
        let text = [&b"a\nb\n"[..], &line, &line, &long, b"end"].concat();
        let lengths: Vec<_> = parts(&text).map(<[u8]>::len).collect();
        assert_eq!(lengths, [3004, 3000, 2 * ONE_WRITE + 1, 3]);
        assert_eq!(parts(&text).collect::<Vec<_>>().concat(), text);
        assert_eq!(parts(b"").count(), 0);
    }
}
