//! The inspector on the command line: it starts with the tunnels, and `requests`, `replay` and `har` ask a running client for
//! what its page shows.

mod ask;
mod edit;
mod form;
mod har;
mod lines;
mod replay;
mod requests;

use std::io::{self, IsTerminal as _};
use std::path::Path;

use tracing::{info, warn};

pub(super) use self::har::{HarArgs, har};
pub(super) use self::replay::{ReplayArgs, replay};
pub(super) use self::requests::{RequestsArgs, requests};
use crate::client::Client;
use crate::inspect::{Inspect, Inspector};
use crate::logging::LogFormat;

/// The client with its inspector. If that cannot start, the tunnels run all the same.
pub(super) fn opened(client: Client, inspect: Inspect, state_dir: Option<&Path>) -> Client {
    let Inspect::Port(port) = inspect else { return client };
    match Inspector::start(port, state_dir) {
        Ok(inspector) => client.with_inspector(inspector),
        Err(error) => {
            warn!(event = "no_inspector", %error, "requests are not shown: the inspector cannot start: {error}");
            client
        }
    }
}

/// Says where the inspector is. Only a terminal gets the token: logs are kept, and read by others.
pub(super) fn announce(inspector: Option<&Inspector>, format: LogFormat) {
    let Some(inspector) = inspector else { return };
    let url = inspector.url();
    let is_text = matches!(format, LogFormat::Auto | LogFormat::Text);
    let shown = if is_text && io::stderr().is_terminal() { inspector.secret_url() } else { url.clone() };
    info!(event = "inspector", url, "Inspector: {shown}");
}
