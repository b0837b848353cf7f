//! What commands print on standard output. Its reader may leave early, as `head` does: the command then does its work all the
//! same, and ends with exit code 1.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// Some of the output was not written.
static IS_LOST: AtomicBool = AtomicBool::new(false);

/// Prints a line on standard output, as `println!` does, but without its panic.
#[macro_export]
macro_rules! say {
    ($($part:tt)*) => {
        $crate::output::line(format_args!($($part)*))
    };
}

/// Prints a line; [`say!`] is the short form.
pub fn line(text: fmt::Arguments<'_>) {
    note(writeln!(io::stdout(), "{text}"));
}

/// Prints bytes as they are.
pub fn bytes(content: &[u8]) {
    let mut output = io::stdout();
    note(output.write_all(content).and_then(|()| output.flush()));
}

/// The exit code of a command whose output may be lost: 1 in place of 0.
pub fn checked(code: ExitCode) -> ExitCode {
    if code == ExitCode::SUCCESS && IS_LOST.load(Ordering::Relaxed) { ExitCode::FAILURE } else { code }
}

/// Whether some of the output was not written, so that nothing reads what comes next.
pub fn is_lost() -> bool {
    IS_LOST.load(Ordering::Relaxed)
}

/// A reader that has left knows that. Any other reason, such as a full disk, is said once.
fn note(written: io::Result<()>) {
    let Err(error) = written else { return };
    if !IS_LOST.swap(true, Ordering::Relaxed) && error.kind() != ErrorKind::BrokenPipe {
        // Without standard error either, there is no place for it.
        let _closed = writeln!(io::stderr(), "cannot write to standard output: {error}");
    }
}
