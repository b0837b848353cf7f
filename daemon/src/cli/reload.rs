//! `cokd reload`: asks the running daemon through its admin address.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use cok_client::logging;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{DEFAULT_CONFIG, USAGE, block_on, outcome, wrong};
use crate::config::Config;
use crate::observe::RELOAD;

/// Time limit for the daemon's answer.
const LIMIT: Duration = Duration::from_secs(30);
/// Longer than any answer, in bytes.
const LONGEST_ANSWER: usize = 1024 * 1024;

#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// The daemon's admin address, if it is not the one in the file
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

/// Checks the file first, since a wrong file may name a wrong address. Then asks the daemon.
pub(super) fn ask(args: &ReloadArgs) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return wrong(&error),
    };
    let admin = args.admin.unwrap_or(config.listen.startup.addresses.admin);
    let mut refused = false;
    let asked = block_on(async {
        let asked = tokio::time::timeout(LIMIT, post(admin)).await;
        let (status, text) = asked.context("no answer in time").flatten().with_context(|| {
            format!(
                "cannot ask the daemon at {admin}; if it was started with another `listen.admin`, name that one by \
                     --admin"
            )
        })?;
        refused = status == StatusCode::CONFLICT;
        anyhow::ensure!(refused || status == StatusCode::OK, "the daemon at {admin} answered {status}: {text}");
        if refused {
            logging::complain(&text);
        }
        Ok(())
    });
    if refused { ExitCode::from(USAGE) } else { outcome(asked) }
}

async fn post(admin: SocketAddr) -> anyhow::Result<(StatusCode, String)> {
    let stream = TcpStream::connect(admin).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post(RELOAD).header(HOST, admin.to_string()).body(Empty::<Bytes>::new())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
    connection.abort();
    Ok((head.status, String::from_utf8_lossy(&body).into_owned()))
}
