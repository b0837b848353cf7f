//! What the library does not ask the server for as we need it: the directory's addresses, and the renewal window.

use ::http::StatusCode;
use instant_acme::{CertificateIdentifier, RenewalInfo};
use serde::Deserialize;

use super::http;
use super::validity::Window;

/// The addresses of a server (RFC 8555, section 7.1.1), as far as we ask it ourselves.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Directory {
    pub(super) new_nonce: Option<String>,
    pub(super) key_change: Option<String>,
    renewal_info: Option<String>,
}

impl Directory {
    /// Asks for it.
    pub(super) async fn get(client: &http::Client, url: &str) -> Result<Self, String> {
        let response = client.get(url).await?;
        if response.status() != StatusCode::OK {
            return Err(format!("{url}: answered {}", response.status()));
        }
        serde_json::from_slice(response.body()).map_err(|error| format!("{url}: this is no ACME directory: {error}"))
    }

    /// When the server would like a certificate to be renewed, and in how many seconds to ask again, if it has named
    /// that. It takes no account (RFC 9773, section 4.1). `None` if the server does not say such things.
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
        // As if nothing had come (RFC 9773, section 4.2).
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
