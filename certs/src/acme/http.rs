//! Requests to the ACME server: what `Retry-After` and `Location` said is kept, which the library does not tell.

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

/// The client. Its clones share what the server has said.
#[derive(Clone)]
pub(super) struct Client {
    https: https::Client,
    said: Arc<Mutex<Said>>,
}

#[derive(Default)]
struct Said {
    /// The moment that was named last with 429 or 503.
    retry_after: Option<SystemTime>,
    /// How long to wait before asking again, as the last answer said in which nothing was wrong.
    wait: Option<Duration>,
    /// The address of what was made last.
    created: Option<String>,
}

impl Client {
    /// Trusts the authorities in `ca_file` alone, else those of the system.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, CertsError> {
        Ok(Self { https: https::Client::new(ca_file)?, said: Arc::default() })
    }

    /// The moment before which the server does not want to be asked again, if it has named one since this was last asked.
    pub(super) fn take_retry_after(&self) -> Option<SystemTime> {
        self.said.lock().retry_after.take()
    }

    /// How long the server wants to be left alone until it has done what it was asked for, if its last good answer since
    /// this was last asked has named that.
    pub(super) fn take_wait(&self) -> Option<Duration> {
        self.said.lock().wait.take()
    }

    /// The address of what the server has made since this was last asked.
    pub(super) fn take_created(&self) -> Option<String> {
        self.said.lock().created.take()
    }

    /// Asks for what is at an address, as anybody may.
    pub(super) async fn get(&self, url: &str) -> Result<Response<Bytes>, String> {
        self.send(request(Method::GET, url)).await
    }

    /// Asks for its headers alone.
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

/// How long to wait before asking again, whatever the answer was.
pub(super) fn retry_after(response: &Response<Bytes>) -> Option<Duration> {
    let at = parse_retry_after(response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim())?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

/// What the next request needs (RFC 8555, section 6.5.1).
pub(super) fn nonce(response: &Response<Bytes>) -> Option<String> {
    Some(response.headers().get("replay-nonce")?.to_str().ok()?.to_owned())
}

fn request(method: Method, url: &str) -> Builder {
    // Clients are to say who they are (RFC 8555, section 6.1).
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
            // A proxy or an overloaded server speaks HTML; its status says more than that it is no JSON.
            if !response.status().is_success() && !kind.contains("json") {
                return Err(Error::Other(format!("{uri}: answered {}", response.status()).into()));
            }
            let (mut parts, body) = response.into_parts();
            // Noted above. The library adds any number of seconds to the clock, and panics where that is too late.
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
