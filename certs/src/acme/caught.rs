//! Turns a panic of a future into an error.
//!
//! The ACME library panics on some answers of a server. Renewal must survive that.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{self, AssertUnwindSafe};
use std::task::{Context, Poll};

use crate::dns::BoxFuture;

/// Runs the work. If it panics, the result is the message of the panic.
pub(super) async fn caught<T>(mut work: BoxFuture<'_, T>) -> Result<T, String> {
    // Unwind safety: after a panic the work is dropped and never polled again.
    let polled = |context: &mut Context<'_>| match panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)))
    {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(said(&*panic))),
    };
    poll_fn(polled).await
}

/// The message of a panic.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_with_its_words() {
        let work = async |number: u32| {
            tokio::task::yield_now().await;
            assert!(number < 2, "number {number}");
            number
        };
        assert_eq!(caught(Box::pin(work(1))).await, Ok(1));
        assert_eq!(caught(Box::pin(work(2))).await, Err("number 2".to_owned()));
    }
}
