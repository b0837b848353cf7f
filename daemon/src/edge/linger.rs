//! Uploads that are not wanted any more.
//!
//! A response may be there before its request's body is through. Closing at once would destroy the response on its way.
//! Unread bytes make the kernel reset the connection (RFC 9112, section 9.6). Some HTTP/2 clients take RST_STREAM for a
//! failure even with NO_ERROR. So the rest is read and dropped for a while, up to a bound. HTTP/3 has no such trouble: STOP_SENDING does not
//! cost the response (RFC 9114, section 4.1).

use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::request::RequestBody;

/// Long enough for a visitor to see the response and stop.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// The most bytes that are read and dropped. Some programs read nothing before they have sent all, so it is more than
/// ordinary requests have. Beyond it the visitor can send no more, and still has the time to read.
pub(super) const MOST: u64 = 4 * 1024 * 1024;

/// Reads and drops the rest of a body. Not for one that waits for a 100, which reading would send.
pub(super) fn linger(body: RequestBody) {
    let RequestBody::Hyper { body, .. } = body else { return };
    if !http_body::Body::is_end_stream(&body) {
        tokio::spawn(timeout(LINGER, drop_rest(body)));
    }
}

/// Ends with the body, or never if it is longer than what is dropped.
async fn drop_rest(mut body: impl http_body::Body<Data = Bytes> + Unpin) {
    let mut dropped = 0;
    while dropped < MOST {
        let Some(Ok(frame)) = body.frame().await else { return };
        dropped += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_is_dropped_to_its_end_or_to_the_bound() {
        let body = |length: u64| Full::new(Bytes::from(vec![0; length as usize]));
        assert!(timeout(LINGER, drop_rest(body(MOST - 1))).await.is_ok());
        assert!(timeout(LINGER, drop_rest(body(MOST))).await.is_err());
    }
}
