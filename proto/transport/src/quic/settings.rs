//! The settings of our QUIC connections, each with its reason.

use std::sync::Arc;
use std::time::Duration;

use cok_proto::message::DEFAULT_WINDOW;
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::Congestion;

/// What an operator or user may change about QUIC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// The congestion controller.
    pub congestion: Congestion,
}

/// A client ends a session after this long without a packet from the daemon, and the daemon one of a client that has
/// said so: the smaller of both sides' values counts (RFC 9000, section 10.1).
pub(super) const CLIENT_IDLE: Duration = Duration::from_secs(30);

/// A client shows a sign of life after this much silence. Home routers forget a UDP mapping after 30 s and more; what
/// decides is how soon a client learns that its daemon was killed, which the reset that answers its packet tells it:
/// visitors wait for that. A daemon with 10,000 idle tunnels takes 4,000 such packets a second.
const KEEP_ALIVE: Duration = Duration::from_millis(2500);

/// What a client takes the path's round trip for until it has measured it: a first packet is repeated after three times
/// this. RFC 9002, section 6.2.2, would have 333 ms; but first packets get lost where a daemon restarts, which visitors
/// wait for, and on a longer path one packet is sent twice.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// How many initial windows one stream's sender may be ahead of its reader. Streams' windows are fixed for the life of a
/// connection, so they begin where the multiplexer's grow to: 1 MiB by default, which carries 140 Mbit/s over 60 ms. What
/// all streams of a connection may hold together is bounded apart, see `ConnectionWindow`.
const STREAM_WINDOW_FACTOR: u32 = 4;

/// The window of one stream.
pub(super) fn stream_window(initial_window: u32) -> u32 {
    initial_window.saturating_mul(STREAM_WINDOW_FACTOR)
}

/// The connection's window until it is known what the connection is for.
pub(super) const FIRST_WINDOW: u32 = 1024 * 1024;

/// Bytes that were handed to quinn for sending and are not yet acknowledged, over all streams of a tunnel: what fills a
/// line of 1 Gbit/s over 64 ms.
const SEND_WINDOW: u64 = 8 * 1024 * 1024;

/// Streams that a visitor or client may open before it is known which of the two it is. Each costs memory while idle
/// (100 of them 47 KiB a connection), and a tunnel needs one.
const FIRST_STREAMS: u32 = 4;

/// Unidirectional streams of a peer: HTTP/3 has three (RFC 9114, section 6.2) and reserved ones now and then.
const UNI_STREAMS: u32 = 8;

/// Handshake bytes that may arrive out of order: a post-quantum ClientHello has 2 KiB, a chain of certificates 4.
const CRYPTO_BUFFER: usize = 16 * 1024;

/// What both sides have in common.
fn common(tuning: &Tuning, initial_window: u32) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .congestion_controller_factory(tuning.congestion.factory())
        .stream_receive_window(VarInt::from_u32(stream_window(initial_window)))
        .receive_window(VarInt::from_u32(FIRST_WINDOW))
        .send_window(SEND_WINDOW)
        .crypto_buffer_size(CRYPTO_BUFFER)
        // Every path carries 1,200 bytes (RFC 9000, section 14); from there discovery goes up to what Ethernet with
        // IPv6 leaves, and a black hole, as a tunnel in the path makes one, takes it down again (RFC 8899).
        .initial_mtu(1200)
        .min_mtu(1200)
        .mtu_discovery_config(Some(MtuDiscoveryConfig::default()))
        // Nobody uses datagrams (RFC 9221), so nobody may fill a buffer with them.
        .datagram_receive_buffer_size(None);
    config
}

/// For a daemon's endpoint, whose connections are of visitors and of tunnels; `idle` is how long a connection may be
/// silent, one value for both since it is announced before the protocol is known.
pub(super) fn server(tuning: &Tuning, initial_window: u32, idle: Duration) -> Arc<TransportConfig> {
    let mut config = common(tuning, initial_window);
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(FIRST_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS))
        .max_idle_timeout(IdleTimeout::try_from(idle.max(CLIENT_IDLE)).ok());
    Arc::new(config)
}

/// For a client, whose daemon opens a stream for each exchange.
pub(super) fn client(tuning: &Tuning) -> Arc<TransportConfig> {
    let mut config = common(tuning, DEFAULT_WINDOW);
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(FIRST_EXCHANGES))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(IdleTimeout::try_from(CLIENT_IDLE).ok())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT);
    Arc::new(config)
}

/// Exchanges that a daemon may open before it has announced how many it wants at the most: as many as visitors are held
/// for a tunnel that is away, for they all come at once with the session.
pub(super) const FIRST_EXCHANGES: u32 = cok_proto::message::DEFAULT_MAX_EXCHANGES;
