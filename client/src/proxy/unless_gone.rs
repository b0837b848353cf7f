//! The wait for a connection to the service. It ends with the exchange: a visitor who has left needs none.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use cok_transport::SendHalf;
use tokio::time::sleep;

use super::Failure;
use super::service::dial_error::DialError;

/// Waits for a connection, for at most `limit`, while the exchange stands.
pub(super) async fn unless_gone<T>(
    send: &mut Box<dyn SendHalf>,
    limit: Option<Duration>,
    connecting: impl Future<Output = Result<T, DialError>>,
) -> Result<T, Failure> {
    let mut connecting = pin!(connecting);
    let mut timer = None;
    poll_fn(|cx| {
        if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
            return Poll::Ready(connected.map_err(Failure::from));
        }
        if send.poll_broken(cx).is_ready() {
            return Poll::Ready(Err(Failure::Gone));
        }
        // Most requests find a connection at once, and need no timer.
        let Some(limit) = limit else { return Poll::Pending };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        timer.as_mut().poll(cx).map(|()| Err(Failure::Slow(limit)))
    })
    .await
}
