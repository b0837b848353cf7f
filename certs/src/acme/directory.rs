//! The server's directory and its renewal windows, which the ACME library does not fetch in the way that we need.

use ::http::StatusCode;
use instant_acme::{CertificateIdentifier, RenewalInfo};
use serde::Deserialize;

use super::http;
use super::validity::Window;

/// The server's directory (RFC 8555, section 7.1.1): only the URLs that we use ourselves.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Directory {
    pub(super) new_nonce: Option<String>,
    pub(super) key_change: Option<String>,
    renewal_info: Option<String>,
}

impl Directory {
    /// Fetches the directory.
    pub(super) async fn get(client: &http::Client, url: &str) -> Result<Self, String> {
        let response = client.get(url).await?;
        if response.status() != StatusCode::OK {
            return Err(format!("{url}: answered {}", response.status()));
        }
        serde_json::from_slice(response.body()).map_err(|error| format!("{url}: this is no ACME directory: {error}"))
    }

    /// The window in which the server suggests to renew a certificate, and in how many seconds to ask again, if it says
    /// so.
    ///
    /// No account is needed (RFC 9773, section 4.1). `None` if the server suggests no windows.
    pub(super) async fn window(
        &self,
        client: &http::Client,
        id: &CertificateIdentifier<'_>,
    ) -> Result<Option<(Window, Option<i64>)>, String> {
        let Some(url) = &self.renewal_info else { return Ok(None) };
        let url = format!("{}/{id}", url.trim_end_matches('/'));
        let response = client.get(&url).await?;
        if response.status() != StatusCode::OK {
            return Err(format!("{url}: answered {}", response.status()));
        }
        let info: RenewalInfo = serde_json::from_slice(response.body())
            .map_err(|error| format!("{url}: this is no renewal information: {error}"))?;
        let window = info.suggested_window;
        let window = Window { start: window.start.unix_timestamp(), end: window.end.unix_timestamp() };
        // Treated like no answer (RFC 9773, section 4.2).
        if window.end <= window.start {
            return Err(format!("{url}: the window ends before it begins"));
        }
        let again = http::retry_after(&response).map(|wait| i64::try_from(wait.as_secs()).unwrap_or(i64::MAX));
        Ok(Some((window, again)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_need_not_change_keys_to_say_when_to_renew() {
        let directory: Directory = serde_json::from_str(r#"{"renewalInfo": "https://acme.test/renewal"}"#).unwrap();
        assert!(directory.renewal_info.is_some() && directory.key_change.is_none());
    }
}
