//! Counts an upload, and says what arrived. It keeps only the beginning.

use std::fmt::Write as _;
use std::time::Instant;

use bytes::Bytes;
use cok_client::{Body as RequestBody, BoxError};
use cok_http::html::escape;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};

use super::{Body, HTML, TEXT, full, page};

/// How many bytes of the beginning are shown.
const SHOWN: usize = 512;

/// What arrived.
#[derive(Debug)]
struct Arrived {
    bytes: u64,
    seconds: f64,
    sha256: String,
    beginning: Vec<u8>,
}

/// Reads an upload to its end.
pub(super) async fn receive(request: Request<RequestBody>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let arrived = match count(body).await {
        Ok(arrived) => arrived,
        // As a rule, the visitor has left.
        Err(error) => return full(StatusCode::BAD_REQUEST, TEXT, format!("The upload broke off: {error}\n")),
    };
    let wants_json = parts.headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes() == b"application/json");
    if wants_json {
        let Arrived { bytes, seconds, sha256, .. } = arrived;
        let json = serde_json::json!({ "bytes": bytes, "seconds": rounded(seconds), "sha256": sha256 });
        return full(StatusCode::OK, "application/json", json.to_string());
    }
    full(StatusCode::OK, HTML, report(&arrived, &parts.headers))
}

async fn count(mut body: RequestBody) -> Result<Arrived, BoxError> {
    let (began, mut hash) = (Instant::now(), Sha256::new());
    let (mut bytes, mut beginning) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(part): Result<Bytes, _> = frame?.into_data() else { continue };
        bytes += part.len() as u64;
        hash.update(&part);
        let wanted = SHOWN.saturating_sub(beginning.len()).min(part.len());
        beginning.extend_from_slice(&part[..wanted]);
    }
    let mut sha256 = String::new();
    for byte in hash.finalize() {
        let _infallible = write!(sha256, "{byte:02x}");
    }
    Ok(Arrived { bytes, seconds: began.elapsed().as_secs_f64(), sha256, beginning })
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

fn report(arrived: &Arrived, headers: &HeaderMap) -> String {
    let Arrived { bytes, seconds, sha256, beginning } = arrived;
    let kind = headers.get(CONTENT_TYPE).map(|kind| String::from_utf8_lossy(kind.as_bytes()).into_owned());
    format!(
        "{}<dl>\n<dt>Bytes, with the frame of the form</dt><dd>{bytes}</dd>\n<dt>Seconds</dt><dd>{}</dd>\n\
         <dt>SHA-256</dt><dd>{sha256}</dd>\n<dt>Content-Type</dt><dd>{}</dd>\n</dl>\n<p>It begins with:</p>\n\
         <pre>{}</pre>\n{}",
        page::top("The upload arrived"),
        rounded(*seconds),
        escape(&kind.unwrap_or_else(|| "none".to_owned())),
        escape(&shown(beginning)),
        page::BOTTOM
    )
}

/// Bytes as text, with a dot for each that is none.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c == '\n' || c == '\t' || !(c.is_control() || c == '\u{fffd}') { c } else { '.' }).collect()
}
