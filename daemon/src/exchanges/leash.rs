//! How an exchange is taken from a visitor that does not let go of it.
//!
//! The edge's library polls a response only while the visitor takes bytes. So the daemon drops the task that sends it: over
//! HTTP/2 and HTTP/3 that of the request, over HTTP/1.1 that of the connection.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Ends a response at its visitor.
#[derive(Clone, Debug)]
pub(crate) struct Leash {
    response: CancellationToken,
    connection: CancellationToken,
}

impl Leash {
    /// Of a connection that carries one exchange at a time. `connection` ends it.
    pub(crate) fn of_connection(connection: &CancellationToken) -> Self {
        Self { response: connection.clone(), connection: connection.clone() }
    }

    /// Of one of the streams of a connection.
    pub(crate) fn of_stream(connection: &CancellationToken) -> Self {
        Self { response: CancellationToken::new(), connection: connection.clone() }
    }

    /// Runs what sends the response, until it is done or cut off.
    pub(crate) async fn hold<F: Future>(&self, task: F) -> Option<F::Output> {
        self.response.run_until_cancelled(task).await
    }

    /// Drops what sends the response.
    pub(crate) fn cut(&self) {
        self.response.cancel();
    }

    /// Ends the connection, with all that it carries.
    pub(super) fn cut_connection(&self) {
        self.connection.cancel();
    }
}

/// Runs the streams of an HTTP/2 connection in tasks, each on the leash of its request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leashes {
    /// The leash of the request that the library has just handed out. It starts the request's task right after that.
    next: Arc<Mutex<Option<Leash>>>,
}

impl Leashes {
    /// The leash of a request that the library hands out.
    pub(crate) fn next(&self, connection: &CancellationToken) -> Leash {
        let leash = Leash::of_stream(connection);
        *self.next.lock() = Some(leash.clone());
        leash
    }
}

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Leashes {
    fn execute(&self, task: F) {
        let leash = self.next.lock().take();
        // Boxed: each layer of a future around it would have room for it twice, and be moved with it.
        let task = Box::pin(task);
        match leash {
            Some(leash) => tokio::spawn(async move { drop(leash.hold(task).await) }),
            None => tokio::spawn(async move { drop(task.await) }),
        };
    }
}
