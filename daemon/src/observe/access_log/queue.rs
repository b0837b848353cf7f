//! Lines on their way to the thread that writes them. Putting one in takes no lock and waits for nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::losses::{Losses, SILENCE};
use super::output::Output;

/// The most bytes that wait: those of some 20,000 lines. Further lines are lost.
const MOST: usize = 8 << 20;
/// How long the thread gathers lines, so that a busy daemon wakes it seldom.
const GATHER: Duration = Duration::from_millis(50);
/// About how many bytes one write has.
const ONE_WRITE: usize = 64 * 1024;

/// Lines that wait for the thread. The thread ends once this is dropped, and writes first what waits.
#[derive(Debug)]
pub(super) struct Queue {
    /// `None` only while it is dropped.
    sender: Option<Sender<Message>>,
    shared: Arc<Shared>,
    thread: Thread,
    losses: Arc<Losses>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes that wait or are being written.
    waiting: AtomicUsize,
    /// The thread writes at once, and gathers nothing.
    hurry: AtomicBool,
}

enum Message {
    Line(Vec<u8>),
    /// Takes the place of the output so far, for what comes behind it.
    Output(Output),
}

impl Queue {
    /// Starts a thread that writes to this output.
    pub(super) fn start(output: Output, losses: Arc<Losses>) -> io::Result<Self> {
        let ((sender, receiver), shared) = (channel(), Arc::<Shared>::default());
        let writer = Writer { receiver, output, shared: shared.clone(), losses: losses.clone() };
        let thread = thread::Builder::new().name("access-log".to_owned()).spawn(|| writer.run())?;
        Ok(Self { sender: Some(sender), shared, thread: thread.thread().clone(), losses })
    }

    /// Takes a line, if there is room for it.
    pub(super) fn push(&self, line: Vec<u8>) {
        let bytes = line.len();
        let before = self.shared.waiting.fetch_add(bytes, Ordering::AcqRel);
        if before + bytes > MOST {
            self.shared.waiting.fetch_sub(bytes, Ordering::AcqRel);
            return self.losses.add(1, "they came faster than they could be written");
        }
        self.send(Message::Line(line));
        if before == 0 {
            self.thread.unpark();
        }
    }

    /// Has the lines from here on written to another output.
    pub(super) fn reopen(&self, output: Output) {
        self.send(Message::Output(output));
        self.thread.unpark();
    }

    fn send(&self, message: Message) {
        if let Some(sender) = &self.sender {
            // The thread ends only when this is dropped.
            let _taken = sender.send(message);
        }
    }

    /// Waits until all lines are written, but not longer than this.
    pub(super) fn flush(&self, most: Duration) {
        let end = Instant::now() + most;
        self.shared.hurry.store(true, Ordering::Release);
        self.thread.unpark();
        while self.shared.waiting.load(Ordering::Acquire) > 0 && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        self.shared.hurry.store(false, Ordering::Release);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.sender = None;
        self.thread.unpark();
    }
}

/// What the thread has.
struct Writer {
    receiver: Receiver<Message>,
    output: Output,
    shared: Arc<Shared>,
    losses: Arc<Losses>,
}

impl Writer {
    /// Writes lines until no more can come.
    fn run(mut self) {
        let mut lines = Vec::new();
        loop {
            let mut bytes = 0;
            let is_over = loop {
                match self.receiver.try_recv() {
                    Ok(Message::Line(line)) => {
                        bytes += line.len();
                        lines.push(line);
                        if bytes >= ONE_WRITE {
                            break false;
                        }
                    }
                    Ok(Message::Output(output)) => {
                        self.write(&mut lines, &mut bytes);
                        self.output = output;
                    }
                    Err(TryRecvError::Empty) => break false,
                    Err(TryRecvError::Disconnected) => break true,
                }
            };
            let is_full = bytes >= ONE_WRITE;
            let waiting = self.write(&mut lines, &mut bytes);
            if is_over {
                return;
            }
            if waiting == 0 {
                self.park();
            }
            if !is_full && !self.shared.hurry.load(Ordering::Acquire) {
                thread::park_timeout(GATHER);
            }
        }
    }

    /// Writes these lines. Returns the bytes that wait then.
    fn write(&mut self, lines: &mut Vec<Vec<u8>>, bytes: &mut usize) -> usize {
        if !lines.is_empty()
            && let Err((lost, error)) = self.output.write(lines)
        {
            self.losses.add(lost, &error.to_string());
        }
        lines.clear();
        let written = std::mem::take(bytes);
        self.shared.waiting.fetch_sub(written, Ordering::AcqRel) - written
    }

    /// Waits for something to do. Warns meanwhile of lines that were lost and not named.
    fn park(&self) {
        if self.losses.has_unsaid() {
            thread::park_timeout(SILENCE);
            self.losses.remind();
        } else {
            thread::park();
        }
    }
}
