//! Named pipes. `run/PID.pipe` in the state directory has the random name of a client's pipe.
//!
//! By default, only its owner and administrators may write to a pipe, and only they can read the file in the user's profile.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cok_host::private_file;
use tokio::net::windows::named_pipe::{ClientOptions, NamedPipeClient, NamedPipeServer, ServerOptions};
use tokio::time::sleep;

use crate::instance::new_id;

/// The folder in the state directory.
const FOLDER: &str = "run";
const EXTENSION: &str = "pipe";
/// The longest name of a pipe, in bytes.
const LONGEST_NAME: u64 = 256;
/// All instances of a pipe are taken (`ERROR_PIPE_BUSY`).
const BUSY: i32 = 231;
/// The most time for a connection, and the wait between two tries.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_RETRY: Duration = Duration::from_millis(20);

/// The two ends of a connection: the one that asks, and the one that answers.
pub(in super::super) type Asking = NamedPipeClient;
pub(in super::super) type Answering = NamedPipeServer;

/// A pipe that waits for connections.
#[derive(Debug)]
pub(in super::super) struct Listener {
    name: String,
    next: NamedPipeServer,
}

/// The file with the name of a client's pipe. Dropping it removes the file.
#[derive(Debug)]
pub(in super::super) struct SocketPath(PathBuf);

impl Drop for SocketPath {
    fn drop(&mut self) {
        // If it stays, the next command removes it.
        let _stays = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Waits for the next connection.
    pub(in super::super) async fn accept(&mut self) -> io::Result<Answering> {
        self.next.connect().await?;
        let next = ServerOptions::new().reject_remote_clients(true).create(&self.name)?;
        Ok(std::mem::replace(&mut self.next, next))
    }
}

/// Listens on a pipe of this process.
#[expect(clippy::unused_async, reason = "other systems wait here")]
pub(in super::super) async fn listen(state_dir: &Path, pid: u32) -> io::Result<(Listener, SocketPath)> {
    let folder = state_dir.join(FOLDER);
    private_file::create_private_folder(&folder)?;
    let name = format!(r"\\.\pipe\cok-client-{}", new_id()?);
    let next = ServerOptions::new().first_pipe_instance(true).reject_remote_clients(true).create(&name)?;
    let path = folder.join(format!("{pid}.{EXTENSION}"));
    // A killed client with this PID may have left its file.
    private_file::write(&path, name.as_bytes())?;
    Ok((Listener { name, next }, SocketPath(path)))
}

/// The clients that run, by their PIDs. Removes the files of those that have ended.
pub(in super::super) async fn running(state_dir: &Path) -> io::Result<Vec<(u32, io::Result<Asking>)>> {
    let entries = match std::fs::read_dir(state_dir.join(FOLDER)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut running = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_ours = path.extension().is_some_and(|extension| extension == EXTENSION);
        let pid = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        let (true, Some(pid)) = (is_ours, pid) else { continue };
        match connect(&path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // It may be gone by itself.
                let _stays = std::fs::remove_file(&path);
            }
            connected => running.push((pid, connected)),
        }
    }
    running.sort_unstable_by_key(|(pid, _)| *pid);
    Ok(running)
}

async fn connect(path: &Path) -> io::Result<Asking> {
    let name = String::from_utf8(private_file::read(path, LONGEST_NAME)?).map_err(io::Error::other)?;
    let began = Instant::now();
    loop {
        match ClientOptions::new().open(&name) {
            Err(error) if error.raw_os_error() == Some(BUSY) && began.elapsed() < CONNECT_TIMEOUT => {
                sleep(CONNECT_RETRY).await;
            }
            connected => return connected,
        }
    }
}
