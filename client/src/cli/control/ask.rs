//! `cok-client status`, `reload` and `stop`: they ask running clients over their control sockets.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use cok_host::columns::columns;
use cok_host::say;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::socket::{self, Asking};
use super::{Answer, ClientLine, Place, Request, read_line, to_line};
use crate::cli::failure::{FAILED, USAGE};
use crate::cli::plan::state_dir;
use crate::cli::program::called;
use crate::config::ConfigError;
use crate::logging;
use crate::text::quoted;

/// The longest answer, in bytes: more than that of a client with 1,000 tunnels.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;
/// The most time for an answer.
const LIMIT: Duration = Duration::from_secs(15);
/// The most time for a client to stop. Its requests may take 10 s.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StatusArgs {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
    /// The state directory of the clients [default: ~/.local/state/cok]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Arguments that pick running clients.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PickArgs {
    /// The process id of the client; not needed if only one runs
    #[arg(value_name = "PID")]
    pid: Option<u32>,
    /// All running clients
    #[arg(long, conflicts_with = "pid")]
    all: bool,
    /// The state directory of the clients [default: ~/.local/state/cok]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// A running client.
type Found = (u32, io::Result<Asking>);

/// Lists the tunnels of all running clients.
pub(in crate::cli) fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    let clients = block_on(async {
        let mut clients = Vec::new();
        for (pid, stream) in socket::running(&state_dir(args.state_dir.as_deref())?).await? {
            match ask(stream, Request::Status).await {
                Ok((Answer::Status(client), _)) => clients.push(client),
                other => code = unexpected(pid, other),
            }
        }
        Ok(clients)
    })?;
    if args.json {
        say!("{}", serde_json::to_string(&clients)?);
    } else if clients.is_empty() {
        say!("no client runs");
    } else {
        for line in table(&clients) {
            say!("{line}");
        }
    }
    Ok(code)
}

/// Has running clients read their files again.
pub(in crate::cli) fn reload(args: &PickArgs) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    block_on(async {
        for (pid, stream) in args.pick().await? {
            match ask(stream, Request::Reload).await {
                Ok((Answer::Reloaded { message, .. }, _)) => say!("client {pid}: {}", quoted(&message)),
                Ok((Answer::NotReloaded { mistakes }, _)) => {
                    for mistake in mistakes {
                        logging::complain(&format!("{}: client {pid}: {}", called(), quoted(&mistake)));
                    }
                    code = ExitCode::from(USAGE);
                }
                other => code = unexpected(pid, other),
            }
        }
        Ok(code)
    })
}

/// Has all running clients read again which share links are revoked.
pub(in crate::cli) fn apply_revocations(state_dir: &Path) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    block_on(async {
        for (pid, stream) in socket::running(state_dir).await? {
            match ask(stream, Request::Revoke).await {
                Ok((Answer::Revoked, _)) => {}
                other => code = unexpected(pid, other),
            }
        }
        Ok(code)
    })
}

/// Finds the inspector of a running client: of the one with this PID, or of the only one that has an inspector.
pub(in crate::cli) async fn inspector(pid: Option<u32>, state_dir: &Path) -> anyhow::Result<Place> {
    let (mut found, mut without) = (Vec::new(), Vec::new());
    for (running, stream) in socket::running(state_dir).await? {
        if pid.is_some_and(|pid| pid != running) {
            continue;
        }
        match ask(stream, Request::Inspector).await {
            Ok((Answer::Inspector(place), _)) => found.push((running, place)),
            Ok((Answer::NoInspector, _)) => without.push(running.to_string()),
            other => drop(unexpected(running, other)),
        }
    }
    match (found.len(), pid) {
        (1, _) => Ok(found.remove(0).1),
        (0, _) if !without.is_empty() => {
            bail!("client {} runs with --inspect off; start it without, or with --inspect PORT", without.join(", "))
        }
        (0, Some(pid)) => bail!("there is no client {pid}"),
        (0, None) => bail!("no client runs"),
        (count, _) => {
            let pids = found.iter().map(|(pid, _)| pid.to_string()).collect::<Vec<_>>().join(", ");
            Err(ConfigError::new(format!("{count} clients run: say --pid and one of {pids}")).into())
        }
    }
}

/// Stops running clients and waits for their ends.
pub(in crate::cli) fn stop(args: &PickArgs) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    block_on(async {
        let mut stopping = Vec::new();
        for (pid, stream) in args.pick().await? {
            match ask(stream, Request::Stop).await {
                Ok((Answer::Stopping, stream)) => stopping.push((pid, stream)),
                other => code = unexpected(pid, other),
            }
        }
        for (pid, mut stream) in stopping {
            // The connection ends, or breaks, with the program.
            if let Ok(_ended) = timeout(STOP_LIMIT, stream.read(&mut [0])).await {
                say!("client {pid} has stopped");
            } else {
                logging::complain(&format!("{}: client {pid} is still stopping", called()));
                code = ExitCode::from(FAILED);
            }
        }
        Ok(code)
    })
}

impl PickArgs {
    /// The clients that the user means.
    async fn pick(&self) -> anyhow::Result<Vec<Found>> {
        let running = socket::running(&state_dir(self.state_dir.as_deref())?).await?;
        let pids = running.iter().map(|(pid, _)| pid.to_string()).collect::<Vec<_>>().join(", ");
        match (self.pid, running.len()) {
            (None, 0) => bail!("no client runs"),
            (None, 2..) if !self.all => {
                let why = format!("{} clients run: name one of {pids}, or say --all", running.len());
                Err(ConfigError::new(why).into())
            }
            (None, _) => Ok(running),
            (Some(pid), _) => {
                let found: Vec<_> = running.into_iter().filter(|(found, _)| *found == pid).collect();
                if found.is_empty() {
                    let others =
                        if pids.is_empty() { "no client runs".to_owned() } else { format!("these run: {pids}") };
                    bail!("there is no client {pid}; {others}");
                }
                Ok(found)
            }
        }
    }
}

/// Sends a request and waits for the answer.
async fn ask(stream: io::Result<Asking>, request: Request) -> anyhow::Result<(Answer, Asking)> {
    let mut stream = stream?;
    let asking = async {
        stream.write_all(&to_line(&request)?).await?;
        read_line(&mut stream, LONGEST_ANSWER).await
    };
    let line = timeout(LIMIT, asking).await.context("no answer in time")??.context("it ended without an answer")?;
    Ok((serde_json::from_slice(&line).context("its answer is not understood")?, stream))
}

/// Says why a client has not done what it was asked for.
fn unexpected(pid: u32, answer: anyhow::Result<(Answer, Asking)>) -> ExitCode {
    let why = match answer {
        Ok((Answer::Failed { reason }, _)) => reason,
        Ok(_) => "it answered another question".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    logging::complain(&format!("{}: client {pid}: {}", called(), quoted(&why)));
    ExitCode::from(FAILED)
}

/// A line for each tunnel, with a heading.
fn table(clients: &[ClientLine]) -> Vec<String> {
    let mut rows = vec![["PID", "TUNNEL", "STATE", "URL", "TARGET", "TRANSPORT", "SESSION"].map(str::to_owned)];
    for client in clients {
        let cell = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), quoted);
        for tunnel in &client.tunnels {
            let state = match &tunnel.reason {
                Some(reason) => format!("{}: {reason}", tunnel.state),
                None => tunnel.state.clone(),
            };
            rows.push([
                client.pid.to_string(),
                cell(&tunnel.label),
                quoted(&state),
                cell(&tunnel.url),
                cell(&tunnel.target),
                cell(&tunnel.transport),
                cell(&tunnel.session),
            ]);
        }
        if client.tunnels.is_empty() {
            let state = if client.stopping { "stopping" } else { "no tunnels" };
            rows.push([&client.pid.to_string(), "-", state, "-", "-", "-", "-"].map(str::to_owned));
        }
    }
    columns(&rows)
}

fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?.block_on(future)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::overview::TunnelLine;

    #[test]
    fn the_list_has_aligned_columns() {
        let tunnel = TunnelLine {
            label: Some("we\nb".to_owned()),
            url: Some("https://web.t".to_owned()),
            target: None,
            state: "refused".to_owned(),
            reason: Some("no".to_owned()),
            transport: None,
            session: None,
        };
        let client = |pid, tunnels| ClientLine {
            pid,
            version: "1".to_owned(),
            server: "https://t".to_owned(),
            stopping: true,
            tunnels,
        };
        assert_eq!(
            table(&[client(7, vec![tunnel]), client(1234, Vec::new())]),
            [
                "PID   TUNNEL  STATE        URL            TARGET  TRANSPORT  SESSION",
                "7     we\\nb   refused: no  https://web.t  -       -          -",
                "1234  -       stopping     -              -       -          -",
            ]
        );
    }
}
