//! The machine that the daemon runs on: sockets and notifications of the service manager, credentials, and what the
//! daemon's user sees. This part knows nothing of traffic.

pub(crate) mod activation;
pub(crate) mod credentials;
pub(crate) mod descriptors;
pub(crate) mod flushes;
pub(crate) mod memory;
pub(crate) mod notify;
pub(crate) mod process;
pub(crate) mod service_view;
pub(crate) mod tcp_queue;
pub(crate) mod unit;
