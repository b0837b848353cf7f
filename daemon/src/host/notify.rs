//! Notifications to the service manager (sd_notify(3)), if there is one, and the questions of `cokd check` to it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// How much longer than asked a stop may take before the service manager kills: the clocks of both are not the same.
const MARGIN: Duration = Duration::from_secs(5);

/// Whether there is one that waits to be told.
pub(crate) fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Traffic is accepted.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read again; [`ready`] ends that.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "no clock for the service manager, which does not hear of the reload: {error}"),
    }
}

/// The daemon stops, and may take so long for it.
pub(crate) fn stopping(within: Duration) {
    let within = u32::try_from((within + MARGIN).as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(within)]);
}

/// Shows a line in the service's status: what it lacks, or why it has ended; an empty one takes that back. The log of a
/// process that was about to be started again is not shown there.
pub(crate) fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// The command that has systemd open the port for DNS, if systemd runs here and does not do so yet.
pub(crate) fn dns_socket_advice() -> Option<&'static str> {
    if !Path::new("/run/systemd/system").exists() || systemctl("is-enabled", "cokd-dns.socket")? != "disabled" {
        return None;
    }
    // A socket cannot be started while the service that it belongs to runs.
    Some(match systemctl("is-active", "cokd.service")?.as_str() {
        "active" | "activating" | "reloading" => "systemctl enable cokd-dns.socket && systemctl restart cokd",
        _ => "systemctl enable --now cokd-dns.socket",
    })
}

/// What systemctl says of a unit, in one word; nothing if there is no systemctl.
fn systemctl(question: &str, unit: &str) -> Option<String> {
    let said = Command::new("systemctl").args([question, unit]).stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// Feeds the watchdog, where there is one, until it is dropped. It is a task like all others, so it starves when they do.
pub(crate) async fn feed_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut interval = tokio::time::interval((limit / 3).max(Duration::from_millis(100)));
    loop {
        interval.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "the service manager cannot be told: {error}");
    }
}
