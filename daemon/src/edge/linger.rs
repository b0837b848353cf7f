//! Uploads that are not wanted any more.
//!
//! A response may be there before its request's body is through. Closing at once would destroy the response on its way.
//! Unread bytes make the kernel reset the connection (RFC 9112, section 9.6). Some HTTP/2 clients take RST_STREAM for a
//! failure even with NO_ERROR. So the rest is read and dropped for a while. HTTP/3 has no such trouble: STOP_SENDING does not
//! cost the response (RFC 9114, section 4.1).

use std::time::Duration;

use http_body_util::BodyExt as _;

use super::request::RequestBody;

/// Long enough for a visitor to see the response and stop.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// Reads and drops the rest of a body. Not for one that waits for a 100, which reading would send.
pub(super) fn linger(body: RequestBody) {
    let RequestBody::Hyper { mut body, .. } = body else { return };
    if http_body::Body::is_end_stream(&body) {
        return;
    }
    tokio::spawn(tokio::time::timeout(LINGER, async move { while let Some(Ok(_dropped)) = body.frame().await {} }));
}
