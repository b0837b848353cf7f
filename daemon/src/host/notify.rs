//! Notifications to the service manager (sd_notify(3)), if there is one, and what `cokd check` asks systemd.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// Margin on top of the announced stop time, since both clocks differ.
const MARGIN: Duration = Duration::from_secs(5);

/// True if a service manager waits for notifications.
pub(crate) fn is_present() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Notifies that the daemon accepts traffic.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Notifies that a reload has begun. [`ready`] ends it.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "no clock for the service manager, which does not hear of the reload: {error}"),
    }
}

/// Notifies that the daemon stops and may take this long.
pub(crate) fn stopping(within: Duration) {
    let within = u32::try_from((within + MARGIN).as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(within)]);
}

/// Sets the status line of the service: what is missing, or why it has ended. An empty text clears it. `systemctl
/// status` shows no log lines of a process that systemd restarts.
pub(crate) fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// The command that makes systemd open the port for DNS, if systemd runs here and the socket is disabled.
pub(crate) fn dns_socket_advice() -> Option<&'static str> {
    if !Path::new("/run/systemd/system").exists() || systemctl("is-enabled", "cokd-dns.socket")? != "disabled" {
        return None;
    }
    // systemd cannot start a socket while its service runs.
    Some(match systemctl("is-active", "cokd.service")?.as_str() {
        "active" | "activating" | "reloading" => "systemctl enable cokd-dns.socket && systemctl restart cokd",
        _ => "systemctl enable --now cokd-dns.socket",
    })
}

/// The one-word answer of systemctl about a unit. `None` if there is no systemctl.
fn systemctl(question: &str, unit: &str) -> Option<String> {
    let said = Command::new("systemctl").args([question, unit]).stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// Feeds the watchdog, if there is one, until it is dropped. It is an ordinary task, so it starves when the others do.
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
