//! Room for long bodies on disk: one nameless file in blocks, which only this process can open, and which goes with it.
//!
//! Only the recorder writes. Readers hold a block for as long as they need it; the last holder frees it.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The size of a block. Shorter bodies stay in memory.
pub(in crate::inspect) const BLOCK: usize = 64 * 1024;
/// The most bytes on disk.
pub(in crate::inspect) const ROOM: u64 = 256 * 1024 * 1024;
/// How long a disk that has failed is left alone.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// The file.
#[derive(Debug)]
pub(in crate::inspect) struct Spool {
    file: Option<File>,
    blocks: Arc<Blocks>,
    failed: Mutex<Option<(Instant, String)>>,
}

/// Which blocks are free.
#[derive(Debug, Default)]
struct Blocks(Mutex<FreeBlocks>);

#[derive(Debug, Default)]
struct FreeBlocks {
    /// Blocks that were used before.
    free: Vec<u32>,
    /// The number of blocks that the file has.
    count: u32,
}

/// Guard of one block, which is freed when this is dropped.
pub(in crate::inspect) struct Block {
    blocks: Arc<Blocks>,
    number: u32,
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({})", self.number)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.blocks.0.lock().free.push(self.number);
    }
}

/// Why a block was not written.
#[derive(Debug)]
pub(in crate::inspect) enum NoBlock {
    /// All blocks are in use.
    Full,
    /// The disk does not take it.
    Failed,
}

impl Spool {
    /// A spool whose file is in `folder`, or in the system's folder for temporary files. Without a file, it takes nothing.
    pub(in crate::inspect) fn new(folder: Option<&Path>) -> Self {
        let made = match folder {
            Some(folder) => cok_host::private_file::unnamed(folder),
            None => cok_host::private_file::unnamed(&std::env::temp_dir()),
        };
        let (file, failed) = match made {
            Ok(file) => (Some(file), None),
            Err(error) => (None, Some((Instant::now(), error.to_string()))),
        };
        Self { file, blocks: Arc::default(), failed: Mutex::new(failed) }
    }

    /// Writes a block of at most [`BLOCK`] bytes.
    pub(in crate::inspect) fn write(&self, bytes: &[u8]) -> Result<Arc<Block>, NoBlock> {
        let Some(file) = &self.file else { return Err(NoBlock::Failed) };
        if self.failed.lock().as_ref().is_some_and(|(at, _)| at.elapsed() < TRY_AGAIN) {
            return Err(NoBlock::Failed);
        }
        let block = self.block().ok_or(NoBlock::Full)?;
        match write_at(file, bytes, block.offset()) {
            Ok(()) => {
                *self.failed.lock() = None;
                Ok(Arc::new(block))
            }
            Err(error) => {
                *self.failed.lock() = Some((Instant::now(), error.to_string()));
                Err(NoBlock::Failed)
            }
        }
    }

    /// Reads `length` bytes of a block. This waits for the disk.
    pub(in crate::inspect) fn read(&self, block: &Block, length: usize) -> io::Result<Vec<u8>> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = vec![0; length];
        read_at(file, &mut bytes, block.offset())?;
        Ok(bytes)
    }

    /// The bytes of the blocks in use.
    pub(in crate::inspect) fn used(&self) -> u64 {
        let blocks = self.blocks.0.lock();
        (u64::from(blocks.count) - blocks.free.len() as u64) * BLOCK as u64
    }

    /// Why the disk takes nothing at the moment.
    pub(in crate::inspect) fn failure(&self) -> Option<String> {
        self.failed.lock().as_ref().map(|(_, why)| why.clone())
    }

    fn block(&self) -> Option<Block> {
        let mut blocks = self.blocks.0.lock();
        let number = match blocks.free.pop() {
            Some(number) => number,
            None if u64::from(blocks.count) < ROOM / BLOCK as u64 => {
                blocks.count += 1;
                blocks.count - 1
            }
            None => return None,
        };
        Some(Block { blocks: self.blocks.clone(), number })
    }
}

impl Block {
    fn offset(&self) -> u64 {
        u64::from(self.number) * BLOCK as u64
    }
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        (bytes, offset) = (&bytes[written..], offset + written as u64);
    }
    Ok(())
}

#[cfg(windows)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match std::os::windows::fs::FileExt::seek_read(file, &mut bytes[done..], offset + done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => done += read,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_keep_their_bytes_until_the_last_holder_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(Some(folder.path()));
        let (one, two) = (spool.write(b"one").unwrap(), spool.write(b"two").unwrap());
        let reader = one.clone();
        drop(one);
        assert_eq!(spool.read(&reader, 3).unwrap(), b"one");
        assert_eq!(spool.used(), 2 * BLOCK as u64);
        drop(reader);
        // The free block is the next one to be used.
        let three = spool.write(b"three").unwrap();
        assert_eq!(
            (spool.read(&three, 5).unwrap(), spool.read(&two, 3).unwrap()),
            (b"three".to_vec(), b"two".to_vec())
        );
        assert_eq!(spool.used(), 2 * BLOCK as u64);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
    }

    #[test]
    fn a_folder_that_is_not_there_is_a_failure_and_no_panic() {
        let spool = Spool::new(Some(Path::new("/dev/null/folder")));
        assert!(matches!(spool.write(b"x"), Err(NoBlock::Failed)));
        assert!(spool.failure().is_some());
    }
}
