//! Asks the server when it suggests to renew the certificate (RFC 9773).

use instant_acme::CertificateIdentifier;
use tracing::warn;

use super::directory::Directory;
use super::renewer::Renewer;
use crate::one_line::one_line;

/// The shortest and the longest pause between two questions for the window, in seconds (RFC 9773, section 4.3).
const ASK_WINDOW: (i64, i64) = (60, 24 * 3600);
/// Pause before the next question after a failure, or if the server names none, in seconds (RFC 9773, section 4.3.3).
const ASK_WINDOW_AGAIN: i64 = 6 * 3600;

impl Renewer {
    /// Asks for the window, as often as the server wants to be asked.
    pub(super) async fn ask_for_window(&mut self, now: i64) {
        let Some(stored) = &self.current else { return };
        if self.state.ask_window_at.is_some_and(|at| at > now && at - now <= ASK_WINDOW.1) {
            return;
        }
        let Some(id) = stored.certified.cert.first().and_then(|leaf| CertificateIdentifier::try_from(leaf).ok()) else {
            return;
        };
        let answer = match Directory::get(&self.client, &self.settings.directory).await {
            Ok(directory) => directory.window(&self.client, &id).await,
            Err(error) => Err(error),
        };
        let (window, again) = match answer {
            Ok(Some((window, again))) => {
                (Some(window), again.unwrap_or(ASK_WINDOW_AGAIN).clamp(ASK_WINDOW.0, ASK_WINDOW.1))
            }
            Ok(None) => (None, ASK_WINDOW.1),
            Err(error) => {
                let error = one_line(&error);
                warn!(error, "the ACME server did not say when to renew: {error}");
                (self.state.window, ASK_WINDOW_AGAIN)
            }
        };
        self.state.window = window;
        self.state.ask_window_at = Some(now + again);
        self.keep_state().await;
    }
}
