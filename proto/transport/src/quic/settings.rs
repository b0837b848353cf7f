//! The settings of our QUIC connections, each with its reason. The connection window of a session changes later, in
//! `window`.

use std::sync::Arc;
use std::time::Duration;

use cok_proto::message::DEFAULT_WINDOW;
use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::Congestion;

/// The QUIC settings that the configuration may change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// The congestion controller.
    pub congestion: Congestion,
}

/// A client's idle time-out. It holds for both sides, because the smaller of both values counts (RFC 9000, section
/// 10.1).
pub(super) const CLIENT_IDLE: Duration = Duration::from_secs(30);

/// Silence after which a client sends a keep-alive. A killed daemon's successor answers it with a reset, and visitors
/// wait until the client receives that. (Home routers keep a UDP mapping for 30 s and more.) A daemon with 10,000 idle
/// tunnels receives 4,000 such packets a second.
const KEEP_ALIVE: Duration = Duration::from_millis(2500);

/// The round trip that a client assumes before it has measured one. A first packet is repeated after three times this.
/// RFC 9002, section 6.2.2, recommends 333 ms, but first packets get lost when a daemon restarts, and visitors wait
/// then. On a longer path one packet is sent twice.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// The size of a stream window in initial windows. A stream window cannot grow, so it is large from the start: 1 MiB by
/// default, which carries 140 Mbit/s over 60 ms. An exchange's credit begins at one initial window and grows up to it.
/// `ConnectionWindow` bounds what all streams of a connection hold.
const STREAM_WINDOW_FACTOR: u32 = 4;

/// The size of a stream window in bytes.
pub(super) fn stream_window(initial_window: u32) -> u32 {
    initial_window.saturating_mul(STREAM_WINDOW_FACTOR)
}

/// The connection window in bytes before a session or a visitor's HTTP/3 has set its own.
pub(super) const FIRST_WINDOW: u32 = 1024 * 1024;

/// The most unacknowledged bytes in quinn's send buffers over all streams of a tunnel: enough for 1 Gbit/s over 64 ms.
pub(super) const SEND_WINDOW: u64 = 8 * 1024 * 1024;

/// Bidirectional streams that a peer may open before it is known to be a visitor or a client. Each costs memory while
/// idle (100 of them 47 KiB a connection), and a tunnel needs one.
const FIRST_STREAMS: u32 = 4;

/// Unidirectional streams that a peer may open: HTTP/3 has three (RFC 9114, section 6.2), and sometimes reserved ones.
const UNI_STREAMS: u32 = 8;

/// Handshake bytes that may arrive out of order. A post-quantum ClientHello has 2 KiB, a certificate chain 4 KiB.
const CRYPTO_BUFFER: usize = 16 * 1024;

/// The largest datagram in bytes that is sent and taken: an Ethernet jumbo frame of 9,000 bytes less the headers of IPv6 and
/// UDP. A datagram costs processor time whatever its size, so large ones are worth it where the path takes them. Where an
/// interface has a smaller MTU, the kernel refuses the probes, and they are not sent at all.
pub(super) const LARGEST_DATAGRAM: u16 = 8952;

/// The settings of both sides.
fn common(tuning: &Tuning, initial_window: u32) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .congestion_controller_factory(tuning.congestion.factory())
        .stream_receive_window(VarInt::from_u32(stream_window(initial_window)))
        .receive_window(VarInt::from_u32(FIRST_WINDOW))
        .send_window(SEND_WINDOW)
        .crypto_buffer_size(CRYPTO_BUFFER)
        // Every path carries 1,200 bytes (RFC 9000, section 14), and discovery looks for more. If larger packets get
        // lost, as in a tunnel on the path, it goes down again (RFC 8899).
        .initial_mtu(1200)
        .min_mtu(1200)
        .mtu_discovery_config(Some(mtu_discovery()))
        // We use no datagrams (RFC 9221), so no peer may fill a buffer with them.
        .datagram_receive_buffer_size(None);
    config
}

fn mtu_discovery() -> MtuDiscoveryConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(LARGEST_DATAGRAM);
    discovery
}

/// Makes an endpoint take the datagrams that its peers may send.
pub fn take_large_datagrams(config: &mut EndpointConfig) {
    // Only an invalid size is an error.
    let _valid = config.max_udp_payload_size(LARGEST_DATAGRAM);
}

/// The settings of a daemon's endpoint, on which visitors and tunnels arrive. `idle` is how long a connection may be
/// silent. Both get the same value, because it is announced before the protocol is known.
pub(super) fn server(tuning: &Tuning, initial_window: u32, idle: Duration) -> Arc<TransportConfig> {
    let mut config = common(tuning, initial_window);
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(FIRST_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS))
        .max_idle_timeout(IdleTimeout::try_from(idle.max(CLIENT_IDLE)).ok());
    Arc::new(config)
}

/// The settings of a client, whose daemon opens a stream for each exchange.
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

/// Streams that a client grants before ConnectAck announces the most exchanges. Visitors who were held for an absent
/// tunnel all come at once with the session, so it is the default number.
pub(super) const FIRST_EXCHANGES: u32 = cok_proto::message::DEFAULT_MAX_EXCHANGES;
