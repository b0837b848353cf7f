//! Reports on tunnels: addresses on standard output, the rest in the log.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::time::Duration;

use tracing::{info, warn};

use crate::event::Event;

/// Reports the events of a client. The address of each tunnel goes to standard output, alone on its line, once it is online
/// and after each change. The log gets the rest.
pub fn reporter() -> impl FnMut(Event) {
    let mut shown = HashMap::new();
    move |event| match event {
        Event::Connecting { server } => info!(event = "connecting", server, "connecting to {server}"),
        Event::Connected { tunnel, label, transport, url, session, reason } => {
            if shown.get(&tunnel) != Some(&url) {
                // Standard output may be closed. The tunnel stays up all the same.
                let _closed = writeln!(io::stdout(), "{url}");
                shown.insert(tunnel, url.clone());
            }
            info!(event = "connected", tunnel = label, transport, url, session, reason, "the tunnel is online: {url}");
        }
        Event::Fallback { from, to, reason } => {
            info!(event = "fallback", from, to, reason, "the tunnel takes {to}: {reason}");
        }
        Event::Disconnected { reason, retry_in, was_online } => {
            let state = if was_online { "the tunnel is offline" } else { "not connected yet" };
            warn!(event = "disconnected", reason, retry_in_ms = retry_in.as_millis() as u64, "{state}: {reason}");
        }
        Event::NameTaken { label, name, reason, within, .. } => {
            let why = match &name {
                Some(name) => format!("the name \"{name}\" is in use by another client"),
                None => reason.clone(),
            };
            warn!(
                event = "name_taken",
                tunnel = label,
                name,
                reason,
                within_ms = within.as_millis() as u64,
                "{why}; trying again for {} s",
                within.as_secs()
            );
        }
        Event::Refused { label, reason, retry_in, .. } => {
            let who = label.as_ref().map_or_else(|| "the tunnel".to_owned(), |label| format!("the tunnel {label}"));
            let then = match retry_in {
                Some(wait) => format!("; asking again in {} min", wait.as_secs().div_ceil(60)),
                None => String::new(),
            };
            let retry_in_ms = retry_in.map(|wait| wait.as_millis() as u64);
            warn!(event = "tunnel_refused", tunnel = label, reason, retry_in_ms, "{who} is refused: {reason}{then}");
        }
        Event::Displaced { label, url, address, version, retry_in, .. } => {
            let by = match (&version, &address) {
                (Some(version), Some(address)) => format!("cok-client {version} at {address}"),
                (None, Some(address)) => format!("a client at {address}"),
                _ => "another client".to_owned(),
            };
            let what = url.clone().or_else(|| label.clone()).unwrap_or_else(|| "the tunnel".to_owned());
            warn!(
                event = "displaced",
                tunnel = label,
                url,
                address,
                version,
                retry_in_ms = retry_in.as_millis() as u64,
                "{what} was taken over by {by}, with the same key and instance; asking again in {} min without taking over",
                retry_in.as_secs().div_ceil(60)
            );
        }
        // The driver reports none of these.
        Event::RequestBegan { .. }
        | Event::RequestLasts { .. }
        | Event::RequestEnded { .. }
        | Event::BlockedHost { .. } => {}
        Event::Stopping { requests, streams, within } => {
            info!(
                event = "stopping",
                requests,
                streams,
                within_ms = within.as_millis() as u64,
                "{}",
                stopping(requests, streams, within)
            );
        }
    }
}

/// Says what the program waits for before it ends.
fn stopping(requests: usize, streams: usize, within: Duration) -> String {
    let closed = match streams {
        0 => String::new(),
        1 => "1 WebSocket or event stream is closed".to_owned(),
        many => format!("{many} WebSockets or event streams are closed"),
    };
    if requests == 0 {
        return format!("stopping: {closed}");
    }
    let plural = if requests == 1 { "" } else { "s" };
    let and = if streams == 0 { "" } else { ", " };
    format!(
        "stopping: {requests} request{plural} may finish within {} s{and}{closed}; press Ctrl-C again to stop at once",
        within.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_says_what_is_waited_for() {
        let within = Duration::from_secs(10);
        for (requests, streams, said) in [
            (2, 0, "stopping: 2 requests may finish within 10 s; press Ctrl-C again to stop at once"),
            (0, 1, "stopping: 1 WebSocket or event stream is closed"),
            (
                1,
                3,
                "stopping: 1 request may finish within 10 s, 3 WebSockets or event streams are closed; press Ctrl-C \
                 again to stop at once",
            ),
        ] {
            assert_eq!(stopping(requests, streams, within), said);
        }
    }
}
