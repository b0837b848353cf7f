//! Where the thread writes lines: a file, standard error or the journal.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Destination;

/// The socket of systemd's journal.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// The mode of a new file. Lines have addresses of visitors, so only the owner and its group may read them.
const MODE: u32 = 0o640;
/// How often a destination that cannot be opened is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// An open destination, or one that is tried again later.
#[derive(Debug)]
pub(super) struct Output {
    kind: Kind,
    /// When it was last tried to open it, if that failed.
    failed: Option<Instant>,
}

#[derive(Debug)]
enum Kind {
    File {
        path: PathBuf,
        file: Option<File>,
        /// The last line in it has no end.
        is_torn: bool,
    },
    StandardError,
    Journal(Option<UnixDatagram>),
}

impl Output {
    /// Opens a destination.
    pub(super) fn open(to: &Destination) -> io::Result<Self> {
        let mut output = Self::closed(to);
        output.failed = None;
        output.kind.open()?;
        Ok(output)
    }

    /// A destination that could not be opened now.
    pub(super) fn closed(to: &Destination) -> Self {
        let kind = match to {
            Destination::File(path) => Kind::File { path: path.clone(), file: None, is_torn: false },
            Destination::StandardError => Kind::StandardError,
            Destination::Journal => Kind::Journal(None),
        };
        Self { kind, failed: Some(Instant::now()) }
    }

    /// Writes lines. Returns how many were lost, and why.
    pub(super) fn write(&mut self, lines: &[Vec<u8>]) -> Result<(), (u64, io::Error)> {
        let all = lines.len() as u64;
        if self.failed.is_some_and(|failed| failed.elapsed() < RETRY) {
            return Err((all, io::Error::other("it cannot be opened")));
        }
        if let Err(error) = self.kind.open() {
            self.failed = Some(Instant::now());
            return Err((all, error));
        }
        self.failed = None;
        self.kind.write(lines)
    }
}

impl Kind {
    /// Opens it, unless it is open.
    fn open(&mut self) -> io::Result<()> {
        match self {
            Self::File { path, file, .. } if file.is_none() => *file = Some(open_file(path)?),
            Self::Journal(socket) if socket.is_none() => {
                let open = UnixDatagram::unbound()?;
                open.connect(JOURNAL)?;
                *socket = Some(open);
            }
            _ => {}
        }
        Ok(())
    }

    fn write(&mut self, lines: &[Vec<u8>]) -> Result<(), (u64, io::Error)> {
        match self {
            Self::File { file: Some(file), is_torn, .. } => write_all(file, is_torn, &lines.concat()),
            Self::StandardError => {
                let written = io::stderr().lock().write_all(&lines.concat());
                written.map_err(|error| (lines.len() as u64, error))
            }
            Self::Journal(socket) => {
                let Some(open) = &*socket else { return Err((lines.len() as u64, io::ErrorKind::NotConnected.into())) };
                for (sent, line) in lines.iter().enumerate() {
                    if let Err(error) = open.send(line) {
                        // The journal was started again, so its socket is another one.
                        *socket = None;
                        return Err(((lines.len() - sent) as u64, error));
                    }
                }
                Ok(())
            }
            Self::File { file: None, .. } => Err((lines.len() as u64, io::ErrorKind::NotFound.into())),
        }
    }
}

/// Opens a file to append to it. One that something else writes to as well stays whole. A pipe without a reader fails at once.
fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Writes lines, and counts those that were not written whole. A line that was cut short gets its end before the next one.
fn write_all(file: &mut impl Write, is_torn: &mut bool, text: &[u8]) -> Result<(), (u64, io::Error)> {
    let count = |text: &[u8]| memchr::memchr_iter(b'\n', text).count() as u64;
    let mut rest = text;
    let end = if *is_torn { file.write(b"\n").map(|_| *is_torn = false) } else { Ok(()) };
    if let Err(error) = end {
        return Err((count(text), error));
    }
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => return Err((count(rest), io::ErrorKind::WriteZero.into())),
            Ok(written) => {
                *is_torn = rest.get(written - 1) != Some(&b'\n');
                rest = rest.get(written..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((count(rest), error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, and then no more.
    struct Full {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Full {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let part = data.len().min(self.room);
            if part == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= part;
            self.taken.extend_from_slice(&data[..part]);
            Ok(part)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_costs_lines_and_tears_at_most_one() {
        let (mut disk, mut is_torn) = (Full { taken: Vec::new(), room: 4 }, false);
        let (lost, _) = write_all(&mut disk, &mut is_torn, b"a\nbc\nd\n").unwrap_err();
        assert_eq!((lost, is_torn), (2, true));
        assert_eq!(write_all(&mut disk, &mut is_torn, b"e\n").unwrap_err().0, 1);
        disk.room = 100;
        write_all(&mut disk, &mut is_torn, b"f\ng\n").unwrap();
        assert_eq!((disk.taken, is_torn), (b"a\nbc\nf\ng\n".to_vec(), false));
    }
}
