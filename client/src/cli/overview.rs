//! What the program knows about its tunnels, for the control socket.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::plan::Label;
use crate::client::Client;
use crate::event::{Event, TunnelHandle, TunnelState, TunnelStatus};
use crate::inspect::Inspector;
use crate::target::Target;

/// One tunnel, as `cok-client status --json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TunnelLine {
    /// Its name in the file.
    pub(super) label: Option<String>,
    /// Its latest public address.
    pub(super) url: Option<String>,
    /// The local service.
    pub(super) target: Option<String>,
    /// `online`, `connecting` or `refused`.
    pub(super) state: String,
    /// Why it was refused.
    pub(super) reason: Option<String>,
    /// What carries it: `quic` or `ws`.
    pub(super) transport: Option<String>,
    /// The id of its session.
    pub(super) session: Option<String>,
}

/// A tunnel, and the local service behind it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) tunnel: TunnelHandle,
    pub(super) label: Label,
    pub(super) target: String,
}

/// The tunnels of the program.
#[derive(Debug)]
pub(super) struct Overview {
    client: Client,
    tunnels: Mutex<HashMap<TunnelHandle, Details>>,
}

#[derive(Clone, Debug, Default)]
struct Details {
    label: Label,
    target: String,
    /// The latest transport and session.
    carried_by: Option<(&'static str, String)>,
}

impl Overview {
    pub(super) fn new(client: Client) -> Self {
        Self { client, tunnels: Mutex::default() }
    }

    /// Notes a tunnel, or its new label and target.
    pub(super) fn opened(&self, tunnel: TunnelHandle, label: Label, target: &Target) {
        let mut tunnels = self.tunnels.lock();
        let details = tunnels.entry(tunnel).or_default();
        (details.label, details.target) = (label, target.to_string());
    }

    /// Forgets a tunnel.
    pub(super) fn closed(&self, tunnel: TunnelHandle) {
        self.tunnels.lock().remove(&tunnel);
    }

    /// Notes what carries a tunnel, and puts the tunnel's present label into the event.
    pub(super) fn note(&self, event: &mut Event) {
        let mut tunnels = self.tunnels.lock();
        if let Event::Connected { tunnel, transport, session, .. } = event
            && let Some(details) = tunnels.get_mut(tunnel)
        {
            details.carried_by = Some((transport, session.clone()));
        }
        if let Event::Connected { tunnel, label, .. }
        | Event::NameTaken { tunnel, label, .. }
        | Event::Refused { tunnel, label, .. }
        | Event::Displaced { tunnel, label, .. } = event
            && let Some(details) = tunnels.get(tunnel)
        {
            label.clone_from(&details.label);
        }
    }

    /// The open tunnels and their services, in the order in which they were opened.
    pub(super) fn places(&self) -> Vec<Place> {
        let tunnels = self.tunnels.lock();
        let place = |(tunnel, details): (&TunnelHandle, &Details)| Place {
            tunnel: *tunnel,
            label: details.label.clone(),
            target: details.target.clone(),
        };
        let mut places: Vec<_> = tunnels.iter().map(place).collect();
        places.sort_unstable_by_key(|place| place.tunnel);
        places
    }

    /// The name of a tunnel in the file.
    pub(super) fn label(&self, tunnel: TunnelHandle) -> Label {
        self.tunnels.lock().get(&tunnel).and_then(|details| details.label.clone())
    }

    /// The client's inspector, if it has one.
    pub(super) fn inspector(&self) -> Option<&Inspector> {
        self.client.inspector()
    }

    /// Where all tunnels stand. It has no answer while the client stops.
    pub(super) async fn lines(&self) -> Vec<TunnelLine> {
        let status = self.client.status().await;
        let tunnels = self.tunnels.lock();
        status
            .into_iter()
            .map(|status| line(tunnels.get(&status.tunnel).cloned().unwrap_or_default(), status))
            .collect()
    }
}

fn line(details: Details, status: TunnelStatus) -> TunnelLine {
    let TunnelStatus { url, state, .. } = status;
    let (state, reason) = match state {
        TunnelState::Online => ("online", None),
        TunnelState::Connecting => ("connecting", None),
        TunnelState::Refused(reason) => ("refused", Some(reason)),
    };
    let (transport, session) = details.carried_by.filter(|_| state == "online").unzip();
    TunnelLine {
        label: details.label,
        url,
        target: Some(details.target).filter(|target| !target.is_empty()),
        state: state.to_owned(),
        reason,
        transport: transport.map(str::to_owned),
        session,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_online_tunnel_has_a_session() {
        let details = Details {
            label: None,
            target: "http://localhost:3000".to_owned(),
            carried_by: Some(("ws", "s1".to_owned())),
        };
        for (state, named, session) in [
            (TunnelState::Online, "online", Some("s1")),
            (TunnelState::Connecting, "connecting", None),
            (TunnelState::Refused("no".to_owned()), "refused", None),
        ] {
            let status = TunnelStatus { tunnel: TunnelHandle(0), label: None, url: None, state };
            let line = line(details.clone(), status);
            assert_eq!((line.state.as_str(), line.session.as_deref()), (named, session));
            assert_eq!(line.transport.is_some(), session.is_some());
            assert_eq!(line.reason.is_some(), named == "refused");
        }
    }
}
