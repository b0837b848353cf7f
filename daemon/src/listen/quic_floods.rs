//! Floods of QUIC's own frames: PING, PATH_CHALLENGE, MAX_DATA and so on. The library answers them by itself, and counts
//! them. So all connections are looked at now and then, visitors' and tunnels'.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cok_proto::ErrorCode;
use cok_proto::budget::Budget;
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionStats, VarInt};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use super::udp::H3;
use crate::drain::detached::Connections;

/// How often connections are looked at. 5,000 of them take about a millisecond.
const LOOK: Duration = Duration::from_millis(400);
/// What a connection may spend at once: 1,000 frames. The unit is a tenth of one.
const MOST: u32 = 10_000;
/// What time adds in a second: 100 frames. Programs keep a connection alive with a PING in some seconds.
const PER_SECOND: u32 = 1_000;
/// A frame that carries no stream.
const USELESS: u64 = 10;
/// A frame that does, in either direction. Each that we send may be answered with credit for its stream and the connection.
const PROGRESS_EARNS: u64 = 20;
/// Bytes of a STREAM frame that is worth its header. Smaller ones, over all of a connection, count as useless.
const SMALL: u64 = 16;
/// RFC 9114, section 8.1.
const H3_EXCESSIVE_LOAD: u32 = 0x107;

/// The task that watches connections, until this is dropped.
#[derive(Debug)]
pub(super) struct Floods(AbortHandle);

impl Floods {
    /// Watches an endpoint's connections.
    pub(super) fn watch(connections: Arc<Connections>) -> Self {
        let task = tokio::spawn(async move {
            let mut accounts = HashMap::new();
            let mut ticks = interval(LOOK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                accounts = look(&connections.open(), accounts);
            }
        });
        Self(task.abort_handle())
    }
}

impl Drop for Floods {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Closes the connections whose accounts are empty, and returns the accounts of all.
fn look(connections: &[Connection], mut before: HashMap<usize, Account>) -> HashMap<usize, Account> {
    let now = Instant::now();
    let mut accounts = HashMap::with_capacity(connections.len());
    for connection in connections {
        let id = connection.stable_id();
        let mut account = before.remove(&id).unwrap_or_default();
        if account.settle(Counts::of(&connection.stats()), now) {
            accounts.insert(id, account);
        } else {
            debug!(peer = %connection.remote_address(), "a QUIC peer sends too many frames without progress");
            connection.close(VarInt::from_u32(code(connection)), b"too many frames without progress");
        }
    }
    accounts
}

/// The error code of the connection's protocol.
fn code(connection: &Connection) -> u32 {
    let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    if data.and_then(|data| data.protocol).as_deref() == Some(H3) {
        H3_EXCESSIVE_LOAD
    } else {
        ErrorCode::LimitReached.to_u32()
    }
}

/// What a connection has counted since it began.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Frames that came and bring nothing forward by themselves.
    useless: u64,
    acks: u64,
    streams: u64,
    datagrams: u64,
    bytes: u64,
    /// STREAM frames that were sent.
    sent: u64,
}

impl Counts {
    fn of(stats: &ConnectionStats) -> Self {
        let frames = &stats.frame_rx;
        let useless = [
            frames.ack_frequency,
            frames.crypto,
            frames.data_blocked,
            frames.datagram,
            frames.immediate_ack,
            frames.max_data,
            frames.max_stream_data,
            frames.max_streams_bidi,
            frames.max_streams_uni,
            frames.new_connection_id,
            frames.new_token,
            frames.path_challenge,
            frames.path_response,
            frames.ping,
            frames.reset_stream,
            frames.retire_connection_id,
            frames.stop_sending,
            frames.stream_data_blocked,
            frames.streams_blocked_bidi,
            frames.streams_blocked_uni,
        ];
        Self {
            useless: useless.iter().sum(),
            acks: frames.acks,
            streams: frames.stream,
            datagrams: stats.udp_rx.datagrams,
            bytes: stats.udp_rx.bytes,
            sent: stats.frame_tx.stream,
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            useless: self.useless.saturating_sub(before.useless),
            acks: self.acks.saturating_sub(before.acks),
            streams: self.streams.saturating_sub(before.streams),
            datagrams: self.datagrams.saturating_sub(before.datagrams),
            bytes: self.bytes.saturating_sub(before.bytes),
            sent: self.sent.saturating_sub(before.sent),
        }
    }
}

/// The account of one connection.
#[derive(Debug)]
struct Account {
    budget: Budget,
    before: Counts,
}

impl Default for Account {
    fn default() -> Self {
        Self { budget: Budget::new(MOST, PER_SECOND), before: Counts::default() }
    }
}

impl Account {
    /// Settles what has been counted since the last time. `false` if nothing is left.
    fn settle(&mut self, counts: Counts, now: Instant) -> bool {
        let new = counts.since(self.before);
        self.before = counts;
        let streams = new.streams.min(new.bytes / SMALL);
        // One ACK in each datagram is as it should be.
        let useless = new.useless + (new.streams - streams) + new.acks.saturating_sub(new.datagrams);
        let (cost, earned) = (useless.saturating_mul(USELESS), (streams + new.sent).saturating_mul(PROGRESS_EARNS));
        let units = |units: u64| u32::try_from(units).unwrap_or(u32::MAX);
        if cost <= earned {
            self.budget.earn(units(earned - cost));
            return true;
        }
        self.budget.spend(units(cost - earned), now).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts `new` again in each look of a minute; how many looks pass.
    fn looks(new: Counts) -> u32 {
        let (mut account, mut sum, began) = (Account::default(), Counts::default(), Instant::now());
        (0..150)
            .take_while(|look| {
                sum.useless += new.useless;
                sum.acks += new.acks;
                sum.streams += new.streams;
                sum.datagrams += new.datagrams;
                sum.bytes += new.bytes;
                sum.sent += new.sent;
                account.settle(sum, began + LOOK * *look)
            })
            .count() as u32
    }

    #[test]
    fn floods_end_at_the_first_look() {
        let floods = [
            ("pings", Counts { useless: 20_000, datagrams: 200, bytes: 240_000, ..Counts::default() }),
            ("acks", Counts { acks: 20_000, datagrams: 200, bytes: 240_000, ..Counts::default() }),
            ("empty streams", Counts { streams: 90_000, datagrams: 200, bytes: 240_000, ..Counts::default() }),
        ];
        for (name, flood) in floods {
            assert_eq!(looks(flood), 0, "{name}");
        }
    }

    #[test]
    fn honest_traffic_goes_on() {
        let honest = [
            ("quiet", Counts { useless: 2, acks: 2, datagrams: 4, bytes: 200, ..Counts::default() }),
            (
                "download",
                Counts { useless: 15_000, acks: 20_000, datagrams: 20_000, bytes: 900_000, sent: 40_000, streams: 1 },
            ),
            (
                "upload",
                Counts { useless: 3_000, acks: 5, streams: 40_000, datagrams: 40_000, bytes: 50_000_000, sent: 10 },
            ),
            (
                "requests",
                Counts { useless: 500, acks: 400, streams: 4_000, datagrams: 400, bytes: 160_000, sent: 8_000 },
            ),
            ("messages", Counts { useless: 0, acks: 900, streams: 900, datagrams: 900, bytes: 50_000, sent: 900 }),
        ];
        for (name, honest) in honest {
            assert_eq!(looks(honest), 150, "{name}");
        }
    }
}
