//! Requests to the ACME server.
//!
//! It remembers `Retry-After` and `Location` of the answers, which the ACME library does not hand out.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER, USER_AGENT};
use http::request::Builder;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use parking_lot::Mutex;

use crate::error::Error as CertsError;
use crate::https;

/// The HTTP client. Its clones share what the server has said.
#[derive(Clone)]
pub(super) struct Client {
    https: https::Client,
    said: Arc<Mutex<Said>>,
}

#[derive(Default)]
struct Said {
    /// The last `Retry-After` of an answer with 429 or 503.
    retry_after: Option<SystemTime>,
    /// The `Retry-After` of the last answer with 200.
    wait: Option<Duration>,
    /// The `Location` of the last answer with 201.
    created: Option<String>,
}

impl Client {
    /// Trusts only the authorities in `ca_file`, or those of the system without one.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, CertsError> {
        Ok(Self { https: https::Client::new(ca_file)?, said: Arc::default() })
    }

    /// Takes the moment before which the server wants no more requests. `None` if it has named none since the last
    /// call.
    pub(super) fn take_retry_after(&self) -> Option<SystemTime> {
        self.said.lock().retry_after.take()
    }

    /// Takes how long the server still needs for an order. `None` if its last good answer since the last call does not
    /// say so.
    pub(super) fn take_wait(&self) -> Option<Duration> {
        self.said.lock().wait.take()
    }

    /// Takes the URL of what the server has created since the last call.
    pub(super) fn take_created(&self) -> Option<String> {
        self.said.lock().created.take()
    }

    /// Fetches a public resource.
    pub(super) async fn get(&self, url: &str) -> Result<Response<Bytes>, String> {
        self.send(request(Method::GET, url)).await
    }

    /// Fetches the headers of a public resource.
    pub(super) async fn head(&self, url: &str) -> Result<Response<Bytes>, String> {
        self.send(request(Method::HEAD, url)).await
    }

    /// Posts a JSON web signature (RFC 8555, section 6.2).
    pub(super) async fn post_jose(&self, url: &str, signed: String) -> Result<Response<Bytes>, String> {
        let request = request(Method::POST, url).header(CONTENT_TYPE, "application/jose+json");
        self.sent(request.body(Full::new(Bytes::from(signed)))).await
    }

    async fn send(&self, request: Builder) -> Result<Response<Bytes>, String> {
        self.sent(request.body(Full::default())).await
    }

    async fn sent(&self, request: http::Result<Request<Full<Bytes>>>) -> Result<Response<Bytes>, String> {
        let response = self.https.send(request.map_err(|error| error.to_string())?).await?;
        self.note(&response);
        Ok(response)
    }

    fn note(&self, response: &Response<Bytes>) {
        let value = |name| Some(response.headers().get(name)?.to_str().ok()?.trim());
        let mut said = self.said.lock();
        match response.status() {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                said.retry_after = value(RETRY_AFTER).and_then(parse_retry_after).or(said.retry_after);
            }
            StatusCode::CREATED => said.created = value(LOCATION).map(str::to_owned),
            StatusCode::OK => said.wait = retry_after(response),
            _ => {}
        }
    }
}

/// The `Retry-After` of an answer with any status.
pub(super) fn retry_after(response: &Response<Bytes>) -> Option<Duration> {
    let at = parse_retry_after(response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim())?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

/// The nonce for the next request (RFC 8555, section 6.5.1).
pub(super) fn nonce(response: &Response<Bytes>) -> Option<String> {
    Some(response.headers().get("replay-nonce")?.to_str().ok()?.to_owned())
}

fn request(method: Method, url: &str) -> Builder {
    // A client must say who it is (RFC 8555, section 6.1).
    Request::builder().method(method).uri(url).header(USER_AGENT, concat!("cokd/", env!("CARGO_PKG_VERSION")))
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
            // A proxy or an overloaded server answers in HTML. Its status tells more than a failure to parse JSON.
            if !response.status().is_success() && !kind.contains("json") {
                return Err(Error::Other(format!("{uri}: answered {}", response.status()).into()));
            }
            let (mut parts, body) = response.into_parts();
            // Noted above, so it is not lost. The library adds the seconds to the clock and panics on an overflow.
            parts.headers.remove(RETRY_AFTER);
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
