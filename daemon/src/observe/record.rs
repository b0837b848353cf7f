//! What is known of one request at its end: whose it was, what it took where, and how it ended. The edge fills it in on the
//! way; this module measures nothing by itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use cok_proto::Target;
use http::uri::Authority;
use http::{Method, StatusCode, Version};

use super::ending::Ending;
use super::trace::Trace;
use crate::admission::KeyRecord;
use crate::names::Subdomain;

/// One request and its response.
#[derive(Debug)]
pub(crate) struct Record {
    /// A random number, which the lines and the spans of one request have in common.
    pub(crate) id: u64,
    /// When its head had come, for measuring.
    pub(crate) began: Instant,
    /// When its head had come, for people.
    pub(crate) began_at: SystemTime,
    /// The address of the connection.
    pub(crate) peer: IpAddr,
    /// The visitor's address, which trusted proxies may report. `None` if a trusted proxy names none.
    pub(crate) visitor: Option<IpAddr>,
    /// The visitor's version of HTTP.
    pub(crate) version: Version,
    /// The method. `None` if the head was no valid one.
    pub(crate) method: Option<Method>,
    /// The target, with its query. `None` if the head was no valid one.
    pub(crate) target: Option<Target>,
    /// The authority as the visitor has written it. `None` if the request was refused before it was known.
    pub(crate) authority: Option<Authority>,
    /// The tunnel that the request went to. `None` for a name that no tunnel has.
    pub(crate) tunnel: Option<Subdomain>,
    /// The key of the session that the request went to.
    pub(crate) key: Option<Arc<KeyRecord>>,
    /// The transport of the last session that took the request: `ws` or `quic`.
    pub(crate) transport: Option<&'static str>,
    /// How many sessions have taken the request.
    pub(crate) attempts: u32,
    /// The response's status. `None` if there was no response.
    pub(crate) status: Option<StatusCode>,
    /// When the request reached each stage.
    pub(crate) timings: Timings,
    /// Bytes of the request's body that went into the tunnel. After an upgrade, all bytes from the visitor.
    pub(crate) request_bytes: u64,
    /// Bytes of the response's body. After an upgrade, all bytes from the service.
    pub(crate) response_bytes: u64,
    /// It became the session of a client over a WebSocket, and is no visitor's request.
    pub(crate) is_session: bool,
    /// What it lasts as, if it goes on until one of its ends closes it.
    pub(crate) lasting: Option<Lasting>,
    /// How it ended. `None` while it runs.
    pub(crate) ending: Option<Ending>,
    /// The trace that it belongs to.
    pub(crate) trace_id: Option<u128>,
    /// Its spans, if it is recorded.
    pub(crate) trace: Option<Box<Trace>>,
}

/// When a request reached each stage, as the time since it began. A stage that it did not reach has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timings {
    /// The edge passed it on to its tunnel: it was judged and admitted.
    pub(crate) routed: Option<Duration>,
    /// The last session took its head: waiting for the tunnel had ended.
    pub(crate) sent: Option<Duration>,
    /// The final head of the response came out of the tunnel.
    pub(crate) first_byte: Option<Duration>,
    /// The response's head went to the visitor's connection.
    pub(crate) head_out: Option<Duration>,
    /// It was over.
    pub(crate) ended: Option<Duration>,
    /// How long the service took until the first byte of its response. This is no offset: the client has measured it. `None`
    /// if the client has not said.
    pub(crate) service: Option<Duration>,
}

/// What an exchange is that lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lasting {
    /// A stream of server-sent events.
    EventStream,
    /// A WebSocket.
    WebSocket,
    /// A connection that has left HTTP for another protocol.
    Upgrade,
}

impl Lasting {
    /// Its name in logs and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EventStream => "event_stream",
            Self::WebSocket => "websocket",
            Self::Upgrade => "upgrade",
        }
    }
}

/// Where the time to the first byte of a response went. The four add up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Phases {
    /// Judging and routing the request. All of the time if the daemon answered by itself.
    pub(crate) edge: Duration,
    /// Waiting for a session that takes the request, failed attempts included.
    pub(crate) waiting: Option<Duration>,
    /// On the way through the tunnel and back, with the request's body. It includes the service's time if that is unknown.
    pub(crate) tunnel: Option<Duration>,
    /// The service's own time, as the client has measured it.
    pub(crate) service: Option<Duration>,
}

impl Record {
    /// Of a request that has just come from `peer`.
    pub(crate) fn new(peer: IpAddr, version: Version) -> Self {
        Self {
            id: fastrand::u64(..),
            began: Instant::now(),
            began_at: SystemTime::now(),
            peer,
            visitor: Some(peer),
            version,
            method: None,
            target: None,
            authority: None,
            tunnel: None,
            key: None,
            transport: None,
            attempts: 0,
            status: None,
            timings: Timings::default(),
            request_bytes: 0,
            response_bytes: 0,
            is_session: false,
            lasting: None,
            ending: None,
            trace_id: None,
            trace: None,
        }
    }

    /// The time since it began.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Notes that it lasts. Its target then gets memory of its own: it is a part of what the connection has read, which
    /// would stay as a whole.
    pub(crate) fn set_lasting(&mut self, lasting: Lasting) {
        self.lasting = Some(lasting);
        let own = self.target.as_ref().map(|target| Bytes::copy_from_slice(target.as_bytes()));
        self.target = own.and_then(|bytes| Target::from_bytes(bytes).ok());
    }

    /// The response's head goes out.
    pub(crate) fn set_head_out(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.timings.head_out = Some(self.now());
    }

    /// How long it took from its head to the end of its response, or has taken so far.
    pub(crate) fn duration(&self) -> Duration {
        self.timings.ended.unwrap_or_else(|| self.now())
    }

    /// Where the time to the first byte of its response went.
    pub(crate) fn phases(&self) -> Phases {
        self.timings.phases().unwrap_or_else(|| Phases { edge: self.duration(), ..Phases::default() })
    }

    /// The name of the visitor's version of HTTP, as in ALPN: `http/1.0`, `http/1.1`, `h2` or `h3`.
    pub(crate) fn protocol(&self) -> &'static str {
        match self.version {
            Version::HTTP_3 => "h3",
            Version::HTTP_2 => "h2",
            Version::HTTP_10 => "http/1.0",
            _ => "http/1.1",
        }
    }
}

impl Timings {
    /// The phases so far. `None` if neither a tunnel nor the daemon has taken the request.
    fn phases(&self) -> Option<Phases> {
        let Some(routed) = self.routed else {
            let edge = self.head_out.or(self.ended)?;
            return Some(Phases { edge, ..Phases::default() });
        };
        let Some(sent) = self.sent else {
            let waiting = self.head_out.or(self.ended).map(|end| end.saturating_sub(routed));
            return Some(Phases { edge: routed, waiting, ..Phases::default() });
        };
        let whole = self.first_byte.or(self.ended).map(|end| end.saturating_sub(sent));
        // Both ends have clocks of their own, which may run differently.
        let service = self.service.map(|service| whole.map_or(service, |whole| service.min(whole)));
        let tunnel = whole.map(|whole| whole.saturating_sub(service.unwrap_or_default()));
        Some(Phases { edge: routed, waiting: Some(sent.saturating_sub(routed)), tunnel, service })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn the_phases_add_up_to_the_time_to_the_first_byte() {
        let timings = Timings {
            routed: Some(ms(1)),
            sent: Some(ms(11)),
            first_byte: Some(ms(60)),
            head_out: Some(ms(61)),
            ended: Some(ms(500)),
            service: Some(ms(40)),
        };
        let phases = timings.phases().unwrap();
        let expected = Phases { edge: ms(1), waiting: Some(ms(10)), tunnel: Some(ms(9)), service: Some(ms(40)) };
        assert_eq!(phases, expected);
        // A client's clock that runs fast makes no negative time.
        let fast = Timings { service: Some(ms(70)), ..timings }.phases().unwrap();
        assert_eq!((fast.tunnel, fast.service), (Some(ms(0)), Some(ms(49))));
        let silent = Timings { service: None, ..timings }.phases().unwrap();
        assert_eq!((silent.tunnel, silent.service), (Some(ms(49)), None));
    }

    #[test]
    fn a_request_that_goes_nowhere_has_only_the_phases_that_it_reached() {
        let answered = Timings { head_out: Some(ms(2)), ended: Some(ms(3)), ..Timings::default() };
        assert_eq!(answered.phases().unwrap(), Phases { edge: ms(2), ..Phases::default() });
        let offline = Timings { routed: Some(ms(1)), head_out: Some(ms(10_001)), ..Timings::default() };
        let phases = offline.phases().unwrap();
        assert_eq!((phases.edge, phases.waiting, phases.tunnel), (ms(1), Some(ms(10_000)), None));
        assert_eq!(Timings::default().phases(), None);
    }
}
