//! What is known of an exchange besides its halves.

/// Where an exchange comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A visitor.
    Visitor,
    /// A replay of the inspector.
    #[cfg(feature = "inspect")]
    Replay {
        /// The replay's number.
        id: u64,
        /// The number of the exchange that it repeats.
        of: u64,
    },
}

/// The protocol between client and service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP/1.1.
    Http1 = 1,
    /// HTTP/2.
    Http2 = 2,
    /// None: the service runs in this process.
    InProcess = 3,
}
