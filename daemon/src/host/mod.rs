//! What the daemon asks of the machine it runs on: sockets and notifications of the service manager, and
//! credentials. Knows nothing of traffic.

pub(crate) mod activation;
pub(crate) mod credentials;
pub(crate) mod notify;
