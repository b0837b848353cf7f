//! `cok-client serve DIR`: a tunnel to the files of a folder.

use std::path::PathBuf;

use super::args::Flags;
use super::plan::{Invocation, Selection};
use crate::service::LocalService;
use crate::target::Target;

/// Which files to serve, and how to open the tunnel.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// The folder. Visitors may read all files in it, but none whose name begins with a dot, and none outside of it
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    pub(super) flags: Flags,
}

impl ServeArgs {
    /// What the command line asks for.
    pub(super) fn invocation(&self) -> anyhow::Result<Invocation> {
        let target = Target::Service(LocalService::folder(&self.folder)?);
        Ok(Invocation::new(Selection::Target(target), &self.flags))
    }
}
