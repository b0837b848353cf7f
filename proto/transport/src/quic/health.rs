//! Whether an established session's path still carries anything.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::shared::Shared;

/// How often the path is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A path is asked after this much silence while exchanges are under way.
const ASK_BUSY: Duration = Duration::from_secs(2);
/// The same while nothing is: above the keep-alive's interval, whose answer is a sign of life.
const ASK_IDLE: Duration = Duration::from_secs(5);
/// How long the answer may take: three round trips of a bad mobile path.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Watches a session's path, so that a client can move away from one that carries nothing before the session times out.
pub struct Health(Arc<Shared>);

impl Health {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Resolves, with the reason, once the path has turned bad: silence, and no answer to an echo probe. Does not
    /// resolve for a good one; a session that has ended looks bad too, so watch for that as well. May be called again.
    pub async fn turned_bad(&self) -> String {
        let mut heard = (self.received(), Instant::now());
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let received = self.received();
            if received != heard.0 {
                heard = (received, Instant::now());
                continue;
            }
            let ask_after = if self.0.open_exchanges() > 0 { ASK_BUSY } else { ASK_IDLE };
            if heard.1.elapsed() >= ask_after {
                if !self.echo().await {
                    let silence = heard.1.elapsed();
                    return format!("nothing came over UDP for {:.1} s", silence.as_secs_f64());
                }
                heard = (self.received(), Instant::now());
            }
        }
    }

    /// Asks the peer over the control stream; whether it has answered in time.
    async fn echo(&self) -> bool {
        let mut pongs = self.0.pongs.subscribe();
        pongs.mark_unchanged();
        self.0.lock().ping = true;
        self.0.attention.notify_one();
        tokio::time::timeout(ANSWER_WITHIN, pongs.changed()).await.is_ok()
    }

    /// Datagrams that have come so far.
    fn received(&self) -> u64 {
        self.0.connection.stats().udp_rx.datagrams
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("peer", &self.0.connection.remote_address()).finish_non_exhaustive()
    }
}
