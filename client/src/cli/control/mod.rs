//! The control sockets: each running client has one, `run/PID.sock` in the state directory. Only its owner can open it.
//!
//! A connection carries one request and one answer, each a JSON object on a line. `server` answers, `ask` asks, and `socket`
//! makes the sockets and finds them.

mod ask;
mod server;
mod socket;

use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

pub(super) use self::ask::{PickArgs, StatusArgs, apply_revocations, inspector, reload, status, stop};
pub(super) use self::server::{Control, Order, serve};
use super::overview::TunnelLine;
use super::running::Changes;

/// What a client is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
enum Request {
    /// Say where the tunnels stand.
    Status,
    /// Read the file again.
    Reload,
    /// Read again which share links are revoked.
    Revoke,
    /// Say where the inspector is, and with which token it answers.
    Inspector,
    /// Stop. The connection ends with the program.
    Stop,
}

/// What it answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
enum Answer {
    /// Where the tunnels stand.
    Status(ClientLine),
    /// The file is in effect.
    Reloaded {
        /// What has changed, for programs.
        changes: Changes,
        /// The same for people.
        message: String,
    },
    /// The file has mistakes, and nothing has changed.
    NotReloaded {
        /// A line for each.
        mistakes: Vec<String>,
    },
    /// The daemon gets the revoked share links.
    Revoked,
    /// Where its inspector is.
    Inspector(Place),
    /// It has none.
    NoInspector,
    /// It stops.
    Stopping,
    /// It cannot do that.
    Failed {
        /// Why.
        reason: String,
    },
}

/// An inspector, and what opens it. The socket is its owner's alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) address: SocketAddr,
    pub(super) token: String,
}

/// One client, as `cok-client status --json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ClientLine {
    pid: u32,
    version: String,
    server: String,
    /// It waits for its last requests.
    stopping: bool,
    tunnels: Vec<TunnelLine>,
}

/// Reads one line of at most `longest` bytes with its end. `None` at the end of the stream.
async fn read_line(stream: impl AsyncRead + Unpin, longest: usize) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    BufReader::new(stream).take(longest as u64).read_until(b'\n', &mut line).await?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "the line has no end, or is too long")),
    }
}

/// A message as one line.
fn to_line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_lines_of_json() {
        assert_eq!(to_line(&Request::Reload).unwrap(), b"{\"command\":\"reload\"}\n");
        assert_eq!(serde_json::from_str::<Request>("{\"command\":\"stop\",\"later\":1}").unwrap(), Request::Stop);
        for wrong in ["", "{}", "[]", "{\"command\":1}", "{\"command\":\"fly\"}", &"[".repeat(1000)] {
            assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_line_is_bounded() {
        assert_eq!(read_line(&b"abc\nd"[..], 4).await.unwrap().unwrap(), b"abc");
        assert_eq!(read_line(&b""[..], 4).await.unwrap(), None);
        assert!(read_line(&b"abcd\n"[..], 4).await.is_err());
        assert!(read_line(&b"abc"[..], 4).await.is_err());
    }
}
