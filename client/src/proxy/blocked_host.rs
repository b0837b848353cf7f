//! Finds services that answer only to hosts that they know, as development servers do. Such a service refuses every visitor
//! of a tunnel that keeps Host, so its first responses show it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use http::StatusCode;

/// How many responses of a service are looked at.
const LOOKS: u8 = 8;
/// How many bytes of a body are read.
const MOST: usize = 4096;

/// What such services say, and their names.
const SAYINGS: [(&[u8], &str); 4] = [
    (b"Blocked request. This host", "Vite"),
    (INVALID_HOST, WEBPACK),
    (b"Blocked hosts:", "Rails"),
    // Before version 7.
    (b"Blocked host:", "Rails"),
];
const WEBPACK: &str = "webpack-dev-server";
/// Until an early version 5, webpack-dev-server says this alone, with the status 200.
const INVALID_HOST: &[u8] = b"Invalid Host header";

/// Whether a service may refuse the visitors' host. It is asked no more after the first few responses.
#[derive(Debug)]
pub(super) struct BlockedHost(AtomicU8);

impl BlockedHost {
    /// The service `sees_visitors_host`, or else one of its own.
    pub(super) fn new(sees_visitors_host: bool) -> Arc<Self> {
        Arc::new(Self(AtomicU8::new(if sees_visitors_host { LOOKS } else { 0 })))
    }

    /// Whether the next response is to be looked at.
    pub(super) fn is_suspect(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn looked(&self) {
        let _zero = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    }

    /// True for the first that finds it out.
    fn found(&self) -> bool {
        self.0.swap(0, Ordering::Relaxed) > 0
    }
}

/// One response that is looked at.
#[derive(Debug)]
pub(super) struct Suspect {
    host: Arc<BlockedHost>,
    status: Option<StatusCode>,
    body: Vec<u8>,
}

impl Suspect {
    pub(super) fn new(host: Arc<BlockedHost>) -> Self {
        Self { host, status: None, body: Vec::new() }
    }

    /// The response has this status.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Its body goes on.
    pub(super) fn said(&mut self, data: &[u8]) {
        let most = match self.status {
            Some(StatusCode::FORBIDDEN) => MOST,
            // One byte more shows that it is another body.
            Some(StatusCode::OK) => INVALID_HOST.len() + 1,
            _ => 0,
        };
        if most > 0 {
            let room = most.saturating_sub(self.body.len());
            self.body.extend_from_slice(data.get(..room).unwrap_or(data));
        }
    }

    /// The response has ended. Returns the name of a service that refuses the host, once.
    pub(super) fn blocked_by(self) -> Option<&'static str> {
        let status = self.status?;
        let says = |saying: &[u8]| self.body.windows(saying.len()).any(|part| part == saying);
        let found = match status {
            StatusCode::OK => (self.body == INVALID_HOST).then_some(WEBPACK),
            _ => SAYINGS.iter().find(|(saying, _)| says(saying)).map(|(_, name)| *name),
        };
        if found.is_none() {
            self.host.looked();
        }
        found.filter(|_| self.host.found())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(host: &Arc<BlockedHost>, status: StatusCode, body: &[&[u8]]) -> Option<&'static str> {
        let mut suspect = Suspect::new(host.clone());
        suspect.answered(status);
        for part in body {
            suspect.said(part);
        }
        suspect.blocked_by()
    }

    #[test]
    fn a_service_is_found_out_once() {
        let host = BlockedHost::new(true);
        let vite: [&[u8]; 2] = [b"Blocked request. This ", b"host (\"x\") is not allowed."];
        assert_eq!(look(&host, StatusCode::OK, &vite), None);
        assert_eq!(look(&host, StatusCode::FORBIDDEN, &vite), Some("Vite"));
        assert!(!host.is_suspect());
        assert_eq!(look(&host, StatusCode::FORBIDDEN, &vite), None);
        let host = BlockedHost::new(true);
        assert_eq!(look(&host, StatusCode::FORBIDDEN, &[b"Invalid Host header"]), Some("webpack-dev-server"));
        let rails = |saying: &[u8]| look(&BlockedHost::new(true), StatusCode::FORBIDDEN, &[b"<h1>", saying, b"</h1>"]);
        assert_eq!((rails(b"Blocked host: x"), rails(b"Blocked hosts: x, y")), (Some("Rails"), Some("Rails")));
    }

    #[test]
    fn a_whole_body_counts_with_status_200() {
        let whole = |body: &[&[u8]]| look(&BlockedHost::new(true), StatusCode::OK, body);
        assert_eq!(whole(&[b"Invalid Host ", b"header"]), Some("webpack-dev-server"));
        for other in [&[&b"Invalid Host header"[..], b"."][..], &[b"the Invalid Host header"], &[b"Invalid Host"], &[]]
        {
            assert_eq!(whole(other), None);
        }
    }

    #[test]
    fn only_the_first_responses_and_bytes_are_looked_at() {
        let host = BlockedHost::new(true);
        assert_eq!(Suspect::new(host.clone()).blocked_by(), None);
        for _ in 0..LOOKS {
            assert!(host.is_suspect());
            let long = vec![b'x'; MOST - 3];
            assert_eq!(look(&host, StatusCode::FORBIDDEN, &[&long, b"Invalid Host header"]), None);
        }
        assert!(!host.is_suspect() && !BlockedHost::new(false).is_suspect());
    }
}
