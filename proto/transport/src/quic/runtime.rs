//! The runtime under quinn: tokio, where the task of a connection lets others run before it sends.
//!
//! Tokio runs a task that was just woken next, before others that are ready. So each of many exchanges that write at once
//! would cost a datagram of its own.

use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};

/// The runtime for an endpoint. Must be used within a tokio runtime.
pub fn runtime() -> Arc<dyn Runtime> {
    Arc::new(Gathering)
}

#[derive(Debug)]
struct Gathering;

impl Runtime for Gathering {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(Box::pin(Patient { future, gathered: false }));
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }
}

/// A task that lets others run once whenever it is woken.
struct Patient {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The others have run since it was woken.
    gathered: bool,
}

impl Future for Patient {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.gathered, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.gathered = false;
        self.future.as_mut().poll(cx)
    }
}
