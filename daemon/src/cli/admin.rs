//! Asks a running daemon over its admin API.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::admin;
use crate::config::Config;
use crate::host::credentials;

/// Time limit for the daemon's answer.
const LIMIT: Duration = Duration::from_secs(30);
/// Longer than any answer, in bytes: that of 100,000 keys.
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;

/// The way to a daemon.
#[derive(Debug)]
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
        let unreachable = Unanswered::Unreachable;
        match self {
            Self::Socket(state_dir) => {
                // It blocks while a daemon that hangs accepts no connection.
                let state_dir = state_dir.clone();
                let connected = tokio::task::spawn_blocking(move || admin::connect(&state_dir));
                let late = |_| io::Error::from(io::ErrorKind::TimedOut);
                let connected = timeout(LIMIT, connected).await.map_err(late).map_err(unreachable)?;
                let stream = connected.map_err(io::Error::from).flatten().map_err(unreachable)?;
                exchange(stream, "localhost", None, method, path, body).await
            }
            Self::Address(address, token) => {
                let late = |_| io::Error::from(io::ErrorKind::TimedOut);
                let connected = timeout(LIMIT, TcpStream::connect(address)).await.map_err(late).flatten();
                let stream = connected.map_err(unreachable)?;
                exchange(stream, &address.to_string(), token.as_deref(), method, path, body).await
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

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    token: Option<&str>,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), Unanswered> {
    let asked = async {
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::<Bytes>::from(body))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
        connection.abort();
        Ok((head.status, body))
    };
    timeout(LIMIT, asked).await.context("no answer in time").flatten().map_err(Unanswered::Lost)
}
