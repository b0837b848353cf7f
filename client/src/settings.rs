//! What can be wrong with the settings of a client or a tunnel, and what can go wrong when a tunnel opens.

use cok_proto::ErrorCode;

use crate::event::Refused;
use crate::outbound::InvalidProxy;
use crate::server::InvalidServer;
use crate::target::InvalidTarget;
use crate::text::quoted;
use crate::trust::TrustError;

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// The daemon's address.
    #[error(transparent)]
    Server(#[from] InvalidServer),
    /// The API key.
    #[error("the API key is empty, or not one word of printable characters")]
    Key,
    /// The wanted name of a tunnel.
    #[error("the subdomain cannot be used: {0}")]
    Subdomain(String),
    /// Which visitors a tunnel lets in.
    #[error("the rules for visitors cannot be used: {0}")]
    Rules(String),
    /// What a tunnel forwards to.
    #[error(transparent)]
    Target(#[from] InvalidTarget),
    /// The host of a target.
    #[error("cannot forward to \"{0}\": that is no host")]
    TargetHost(String),
    /// A tunnel has neither a target nor a service.
    #[error("the tunnel has nothing to forward to; call target or service")]
    NoTarget,
    /// A duration that must not be zero.
    #[error("{0} must be more than zero")]
    Zero(&'static str),
    /// Whom to trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The proxy on the way to the daemon.
    #[error(transparent)]
    Proxy(#[from] InvalidProxy),
    /// QUIC is to pass a proxy.
    #[error("QUIC does not pass a proxy, which carries only TCP; use the transport auto or ws, or no proxy")]
    QuicThroughProxy,
    /// QUIC cannot be used on this machine.
    #[error("QUIC cannot be set up: {0}")]
    Quic(String),
    /// The inspector cannot start.
    #[error("requests cannot be shown: {0}")]
    Inspector(std::io::Error),
    /// The system gives no random numbers for this installation's id.
    #[error("cannot make the id of this installation: {0}")]
    Instance(std::io::Error),
}

/// Why a tunnel did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting cannot be used. Nothing was sent.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The daemon has refused the tunnel, or the session that was to carry it.
    #[error("refused by the server: {reason}")]
    Refused {
        /// The kind of refusal.
        code: ErrorCode,
        /// The daemon's words.
        reason: String,
    },
    /// The client was closed.
    #[error("the client was closed before the tunnel was online")]
    Closed,
}

impl From<Refused> for OpenError {
    fn from(Refused(error): Refused) -> Self {
        Self::Refused { reason: quoted(&error.to_string()), code: error.code }
    }
}
