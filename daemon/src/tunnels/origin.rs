//! Where a client connects from, and log lines for clients that get no tunnel.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use cok_certs::one_line;
use cok_host::quoted::quoted;
use cok_proto::{ErrorCode, ErrorMessage};
use cok_transport::HandshakeError;
use tracing::info;

use crate::admission::KeyRecord;

/// The advice to the client in a refusal of a name. The log omits it.
pub(super) const CHOOSE_ANOTHER: &str = "; choose another --subdomain";

/// A client's address and transport.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) peer: IpAddr,
    pub(super) transport: &'static str,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}", self.peer, self.transport)
    }
}

impl Origin {
    /// Logs that a connection ended during the handshake.
    pub(super) fn unfinished(self, error: &HandshakeError) {
        let (peer, transport, error) = (self.peer, self.transport, one_line(&error.to_string()));
        info!(%peer, transport, error, "no tunnel came of a connection from {self}: {error}");
    }

    /// Logs a refusal for the operator. Its own message is for the client's user.
    pub(super) fn refused(self, refusal: &ErrorMessage, wanted: Option<&str>, key: Option<&KeyRecord>) {
        let (peer, transport, code) = (self.peer, self.transport, &refusal.code);
        let (name, key) = (wanted.map(quoted), key.map(|key| &*key.name));
        let why = match (code, &name) {
            (ErrorCode::Unauthorized, _) => "the API key is unknown or has expired".to_owned(),
            (ErrorCode::NameTaken, Some(name)) => format!("name {name} is taken"),
            _ => refusal.message.strip_suffix(CHOOSE_ANOTHER).unwrap_or(&refusal.message).to_owned(),
        };
        let named = name.filter(|name| !why.contains(name.as_str())).map(|name| format!("name {name}, "));
        let keyed = key.map(|key| format!("key {key}, "));
        let (named, keyed) = (named.unwrap_or_default(), keyed.unwrap_or_default());
        let name = wanted.map(one_line);
        info!(%peer, name, key, %code, transport, "tunnel refused: {why} ({named}{keyed}from {self})");
    }
}

/// Rounds a duration: to hours from a day on, to minutes from an hour on.
pub(super) fn rounded(duration: Duration) -> humantime::FormattedDuration {
    const UNITS: [(u64, u64); 2] = [(24 * 3600, 3600), (3600, 60)];
    let seconds = duration.as_secs();
    let unit = UNITS.iter().find(|(from, _)| seconds >= *from).map_or(1, |(_, unit)| *unit);
    humantime::format_duration(Duration::from_secs(seconds / unit * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_as_precise_as_people_want_it() {
        for (seconds, said) in [(0, "0s"), (62, "1m 2s"), (3 * 3600 + 125, "3h 2m"), (90_000, "1day 1h")] {
            assert_eq!(rounded(Duration::from_secs(seconds)).to_string(), said);
        }
    }
}
