//! `cok-client replay`: sends a request to the service again, as it was or changed in an editor.

use std::process::ExitCode;

use anyhow::Context as _;
use cok_host::say;

use super::ask::{OfClient, block_on};
use super::edit::in_editor;
use super::form::Form;
use super::lines::line;
use crate::cli::failure::FAILED;
use crate::inspect::Summary;

/// Which request to send again.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ReplayArgs {
    /// The number of the request, as `requests` shows it
    #[arg(value_name = "ID")]
    id: u64,
    /// Change it before, in the editor that VISUAL or EDITOR names
    #[arg(long)]
    edit: bool,
    /// Print the outcome as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: OfClient,
}

/// Sends it, and waits for its end.
pub(in crate::cli) fn replay(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    block_on(async {
        let running = args.client.find().await?;
        let path = format!("requests/{}", args.id);
        let edit = if args.edit {
            let detail = serde_json::from_slice(&running.read(&path).await?)?;
            let body = running.read(&format!("{path}/request/body")).await?;
            let form = Form::new(detail, &body);
            let edited = in_editor(&form.text())?;
            serde_json::to_vec(&form.edit(&edited)?)?
        } else {
            Vec::new()
        };
        let answer = running.post(&format!("{path}/replay?wait"), edit).await?;
        let summary: Summary = serde_json::from_slice(&answer).context("the replay has not ended yet")?;
        if args.json {
            say!("{}", serde_json::to_string(&summary)?);
        } else {
            say!("{}", line(&summary));
        }
        Ok(if summary.state == "complete" { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
    })
}
