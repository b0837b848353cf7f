//! The sockets: TCP, UDP and DNS listeners, TLS, and the redirect from plain HTTP.

pub(crate) mod dns;
pub(crate) mod reset_key;
pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod udp;
