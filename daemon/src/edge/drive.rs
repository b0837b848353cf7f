//! Drives a connection of the HTTP library over TCP to its end, which its lifecycle may bring.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use super::lifecycle::{Action, Lifecycle};

/// A connection that can be told to finish what it has begun.
pub(super) trait Connection: Future<Output = hyper::Result<()>> {
    fn finish(self: Pin<&mut Self>);
}

/// Why the library's connection is not driven any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driven {
    /// It is over.
    Over,
    /// Nothing is in flight, so it can be taken apart.
    Quiet,
}

/// Serves a connection to its end, or until `is_quiet`.
/// It is boxed, since each future around it would have room for it twice.
pub(super) async fn drive(
    connection: &mut Pin<Box<impl Connection>>,
    lifecycle: &mut Lifecycle,
    is_quiet: impl Fn() -> bool,
) -> hyper::Result<Driven> {
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(done) = connection.as_mut().poll(cx) {
                return Poll::Ready(done.map(|()| Driven::Over));
            }
            match lifecycle.poll(cx) {
                Poll::Ready(Action::Announce | Action::Finish) => connection.as_mut().finish(),
                Poll::Ready(Action::Abandon) => {
                    connection.as_mut().finish();
                    let mut done = connection.as_mut().poll(cx);
                    if done.is_pending() {
                        // The first write over HTTP/2 may have waited for other tasks.
                        done = connection.as_mut().poll(cx);
                    }
                    return if let Poll::Ready(Err(error)) = done { Poll::Ready(Err(error)) } else { OVER };
                }
                Poll::Ready(Action::Close) => return OVER,
                Poll::Pending if is_quiet() && !lifecycle.is_finishing() => return Poll::Ready(Ok(Driven::Quiet)),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

const OVER: Poll<hyper::Result<Driven>> = Poll::Ready(Ok(Driven::Over));
