//! Requests to the ACME server: what `Retry-After` said is kept.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::https;

/// The moment that the server named last with 429 or 503.
pub(super) type RetryAfter = Arc<Mutex<Option<SystemTime>>>;

/// The client. Its clones share what `Retry-After` said.
#[derive(Clone)]
pub(super) struct Client {
    https: https::Client,
    retry_after: RetryAfter,
}

impl Client {
    /// Trusts the authorities in `ca_file` alone, else those of the system.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, crate::Error> {
        Ok(Self { https: https::Client::new(ca_file)?, retry_after: RetryAfter::default() })
    }

    /// What the server named since this was last asked.
    pub(super) fn take_retry_after(&self) -> Option<SystemTime> {
        self.retry_after.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, response: &Response<Bytes>) {
        if !matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            return;
        }
        let value = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::trim);
        if let Some(at) = value.and_then(parse_retry_after) {
            *self.retry_after.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
        }
    }
}

/// Seconds or a date (RFC 9110, section 10.2.3).
fn parse_retry_after(value: &str) -> Option<SystemTime> {
    match value.parse::<u64>() {
        Ok(seconds) => SystemTime::now().checked_add(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok(),
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        let uri = request.uri().clone();
        Box::pin(async move {
            let response = client.https.send(request).await.map_err(|error| Error::Other(error.into()))?;
            client.note(&response);
            let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            // A proxy or an overloaded server speaks HTML; its status says more than that it is no JSON.
            if !response.status().is_success() && !kind.contains("json") {
                return Err(Error::Other(format!("{uri}: answered {}", response.status()).into()));
            }
            let (parts, body) = response.into_parts();
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let soon = parse_retry_after("120").unwrap().duration_since(SystemTime::now()).unwrap();
        assert!(soon > Duration::from_secs(110) && soon <= Duration::from_secs(120));
        let date = parse_retry_after("Fri, 31 Dec 1999 23:59:59 GMT").unwrap();
        assert_eq!(date.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(), 946_684_799);
        for nonsense in ["", "soon", "-1", "99999999999999999999"] {
            assert!(parse_retry_after(nonsense).is_none(), "{nonsense}");
        }
        assert!(parse_retry_after(&u64::MAX.to_string()).is_none());
    }
}
