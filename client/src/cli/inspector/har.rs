//! `cok-client har`: writes requests into an HTTP archive.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use cok_host::{output, private_file};

use super::ask::{OfClient, block_on, query};

/// Where to write which requests.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct HarArgs {
    /// The file, which only you can read; - for standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only requests that meet all conditions, as for `requests`
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// Write passwords, tokens and cookies as they are
    #[arg(long)]
    reveal: bool,
    #[command(flatten)]
    client: OfClient,
}

/// Writes the archive.
pub(in crate::cli) fn har(args: &HarArgs) -> anyhow::Result<ExitCode> {
    let query = query(&args.filters, &[("limit", "1000".to_owned()), ("reveal", args.reveal.to_string())])?;
    let is_output = args.file.as_os_str() == "-";
    let path = args.file.display();
    // A rename would replace a link or a device itself.
    match args.file.symlink_metadata() {
        Ok(metadata) if !is_output && !metadata.is_file() => bail!("{path} is not a regular file, and stays as it is"),
        Err(error) if !is_output && error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot write {path}"));
        }
        _ => {}
    }
    let archive = block_on(async { args.client.find().await?.read(&format!("har?{query}")).await })?;
    if is_output {
        output::bytes(&archive);
    } else {
        private_file::write(&args.file, &archive).with_context(|| format!("cannot write {path}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
