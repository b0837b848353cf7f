//! Asks the inspector of a running client.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cli::control::{Place, inspector};
use crate::cli::failure::Usage;
use crate::cli::plan::state_dir;
use crate::inspect::Filter;
use crate::text::quoted;

/// The most time until an answer begins. One to a replay takes as long as the service.
const LIMIT: Duration = Duration::from_secs(30);
/// The longest answer: an archive of all that the inspector keeps.
const LONGEST: usize = 2 * 1024 * 1024 * 1024;

/// Which client is meant.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct OfClient {
    /// The process id of the client; not needed if only one runs
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// The state directory of the clients [default: ~/.local/state/cok]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// The inspector of a running client.
#[derive(Debug)]
pub(super) struct Running(Place);

/// What is wrong, as the inspector says it.
#[derive(Deserialize)]
struct Wrong {
    error: String,
}

impl OfClient {
    /// Finds the inspector.
    pub(super) async fn find(&self) -> anyhow::Result<Running> {
        let state_dir = state_dir(self.state_dir.as_deref())?;
        Ok(Running(inspector(self.pid, &state_dir).await?))
    }
}

impl Running {
    /// Asks for something. Returns the answer, whose body is still to be read.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Response<Incoming>> {
        timeout(LIMIT, self.ask(Method::GET, path, Bytes::new())).await.context("the inspector does not answer")?
    }

    /// Asks for something and reads the whole answer.
    pub(super) async fn read(&self, path: &str) -> anyhow::Result<Bytes> {
        whole(self.get(path).await?).await
    }

    /// Has something done, and reads the whole answer.
    pub(super) async fn post(&self, path: &str, body: Vec<u8>) -> anyhow::Result<Bytes> {
        whole(self.ask(Method::POST, path, body.into()).await?).await
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Response<Incoming>> {
        let Place { address, token } = &self.0;
        let stream = TcpStream::connect(address).await.context("cannot connect to the inspector")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/{path}"))
            .header(HOST, address.to_string())
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let response = sender.send_request(request).await.context("the inspector does not answer")?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = whole(response).await?;
        match serde_json::from_slice(&text) {
            Ok(Wrong { error }) => bail!(quoted(&error)),
            Err(_) => bail!("the inspector answered {status}"),
        }
    }
}

async fn whole(response: Response<Incoming>) -> anyhow::Result<Bytes> {
    let body = Limited::new(response.into_body(), LONGEST).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| anyhow!("the inspector broke off: {error}"))
}

/// The query of a list: the conditions that the words name, and further parameters.
pub(super) fn query(words: &[String], more: &[(&str, String)]) -> anyhow::Result<String> {
    let mut pairs = Vec::new();
    for word in words {
        pairs.push(Filter::condition(word).map_err(Usage)?);
    }
    pairs.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    Ok(pairs.join("&"))
}

/// Runs a command that asks.
pub(super) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?.block_on(future)
}
