//! What the service manager is told (sd_notify(3)); without one, nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// How much longer than asked a stop may take before the service manager kills: the clocks of both are not the same.
const MARGIN: Duration = Duration::from_secs(5);

/// Whether there is one that waits to be told.
pub fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Traffic is accepted.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read again; [`ready`] ends that.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "no clock for the service manager"),
    }
}

/// The daemon stops, and may take so long for it.
pub fn stopping(within: Duration) {
    let within = u32::try_from((within + MARGIN).as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(within)]);
}

/// Shows a line in the service's status: what it does, or why it has ended. The log of a process that was about to be
/// started again is not shown there.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// Feeds the watchdog for ever, where there is one: from a task like all others, so that it starves when they do.
pub async fn feed_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut interval = tokio::time::interval((limit / 3).max(Duration::from_millis(100)));
    loop {
        interval.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "the service manager cannot be told");
    }
}
