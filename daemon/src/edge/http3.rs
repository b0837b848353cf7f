//! Visitors over HTTP/3 (RFC 9114).

use std::sync::Arc;

use quinn::Connection;

use crate::daemon::Daemon;
use crate::places::Place;

/// Serves one visitor's connection to its end. It holds its `place` for as long as anything of it is left.
pub async fn serve(daemon: Arc<Daemon>, connection: Connection, place: Place) {
    let (_daemon, _place) = (daemon, place);
    connection.closed().await;
}
