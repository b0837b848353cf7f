//! Asks a running daemon over its admin API.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::admin;
use crate::config::Config;
use crate::host::credentials;

/// Time limit for the daemon's answer.
const LIMIT: Duration = Duration::from_secs(30);
/// Longer than any answer, in bytes: that of 100,000 keys.
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;
/// Longer than any event, in bytes: the figures of 1,000 tunnels.
const LONGEST_EVENT: usize = 4 * 1024 * 1024;

/// The way to a daemon.
#[derive(Clone, Debug)]
pub(super) enum Daemon {
    /// The socket in this state directory.
    Socket(PathBuf),
    /// Its admin address, with the token for changes.
    Address(SocketAddr, Option<String>),
}

/// A request that has no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// No daemon is there, or it cannot be reached.
    Unreachable(io::Error),
    /// The daemon may have got the request.
    Lost(anyhow::Error),
}

impl From<Unanswered> for anyhow::Error {
    /// For those to whom it does not matter how far the request came.
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Unreachable(error) => error.into(),
            Unanswered::Lost(error) => error,
        }
    }
}

impl Daemon {
    /// The daemon of a configuration; at `address` if there is one.
    pub(super) fn of(config: &Config, address: Option<SocketAddr>) -> anyhow::Result<Self> {
        let Some(address) = address else { return Ok(Self::Socket(config.startup.state_dir.clone())) };
        let token = config.admin.token_file.as_deref().map(credentials::read).transpose()?;
        Ok(Self::Address(address, token))
    }

    /// Sends a request, with a body in JSON. Returns the status and text of the answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), Unanswered> {
        let connection = self.connect().await?;
        let asked = async {
            let (status, body, connection) = connection.send(method, path, body).await?;
            let body =
                Limited::new(body, LONGEST_ANSWER).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
            connection.abort();
            Ok((status, body))
        };
        timeout(LIMIT, asked).await.context("no answer in time").flatten().map_err(Unanswered::Lost)
    }

    /// Begins to listen to a stream of events.
    pub(super) async fn listen(&self, path: &str) -> Result<Events, Unanswered> {
        let connection = self.connect().await?;
        let asked = async {
            let (status, body, connection) = connection.send(Method::GET, path, Vec::new()).await?;
            let events = Events { body, connection, text: BytesMut::new() };
            ensure!(status != StatusCode::NOT_FOUND, "it is older than this command; restart it");
            ensure!(status == StatusCode::OK, "it answered {status}");
            Ok(events)
        };
        timeout(LIMIT, asked).await.context("no answer in time").flatten().map_err(Unanswered::Lost)
    }

    async fn connect(&self) -> Result<Connection, Unanswered> {
        let unreachable = Unanswered::Unreachable;
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        match self {
            Self::Socket(state_dir) => {
                // It blocks while a daemon that hangs accepts no connection.
                let state_dir = state_dir.clone();
                let connected = tokio::task::spawn_blocking(move || admin::connect(&state_dir));
                let connected = timeout(LIMIT, connected).await.map_err(late).map_err(unreachable)?;
                let stream = connected.map_err(io::Error::from).flatten().map_err(unreachable)?;
                Ok(Connection { stream: Box::new(stream), host: "localhost".to_owned(), token: None })
            }
            Self::Address(address, token) => {
                let connected = timeout(LIMIT, TcpStream::connect(address)).await.map_err(late).flatten();
                let stream = connected.map_err(unreachable)?;
                Ok(Connection { stream: Box::new(stream), host: address.to_string(), token: token.clone() })
            }
        }
    }
}

impl std::fmt::Display for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(state_dir) => admin::path(state_dir).display().fmt(f),
            Self::Address(address, _) => address.fmt(f),
        }
    }
}

/// A stream of bytes to the daemon.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection for one request.
struct Connection {
    stream: Box<dyn Stream>,
    host: String,
    token: Option<String>,
}

impl Connection {
    async fn send(
        self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<(StatusCode, Incoming, JoinHandle<hyper::Result<()>>)> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.host);
        if let Some(token) = self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::<Bytes>::from(body))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.stream)).await?;
        let connection = tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok((head.status, body, connection))
    }
}

/// A stream of events (WHATWG HTML, section 9.2), as far as the daemon writes it.
#[derive(Debug)]
pub(super) struct Events {
    body: Incoming,
    connection: JoinHandle<hyper::Result<()>>,
    /// What has come of the next events.
    text: BytesMut,
}

impl Events {
    /// The name and the data of the next event. Fails when the stream has ended, or pauses for too long.
    pub(super) async fn next(&mut self) -> anyhow::Result<(String, Bytes)> {
        loop {
            if let Some(event) = self.take() {
                return Ok(event);
            }
            ensure!(self.text.len() <= LONGEST_EVENT, "an event of the daemon is too long");
            let frame = timeout(LIMIT, self.body.frame()).await.context("the daemon has fallen silent")?;
            let frame = frame.context("the daemon has ended the connection")??;
            if let Ok(data) = frame.into_data() {
                self.text.extend_from_slice(&data);
            }
        }
    }

    /// Takes an event that is complete.
    fn take(&mut self) -> Option<(String, Bytes)> {
        let end = memchr::memmem::find(&self.text, b"\n\n")?;
        let event = self.text.split_to(end + 2).freeze();
        let (mut name, mut data) = (String::new(), Bytes::new());
        for line in event.split(|byte| *byte == b'\n') {
            if let Some(value) = line.strip_prefix(b"event: ") {
                name = String::from_utf8_lossy(value).into_owned();
            } else if let Some(value) = line.strip_prefix(b"data: ") {
                data = event.slice_ref(value);
            }
        }
        Some((name, data))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
