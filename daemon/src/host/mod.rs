//! What the daemon asks of the machine it runs on: sockets and notifications of the service manager, credentials, and the
//! state directory. Knows nothing of traffic.

pub(crate) mod activation;
pub(crate) mod credentials;
pub(crate) mod notify;
pub(crate) mod state_file;
