//! A session that something else than the client has dialled, for the instruction counts of the workspace (`tests/counts`).

use std::sync::Arc;
use std::time::Duration;

use cok_transport::Transport;
use rustls::RootCertStore;

use crate::event::TunnelHandle;
use crate::events::Hub;
use crate::flight::InFlight;
use crate::options::HostHeader;
use crate::proxy::{Config, Proxy, Watch};
use crate::routes::{Routes, Slot};
use crate::service::LocalService;
use crate::target::Target;
use crate::trust::client_config;
use crate::upgrades::Upgrades;

const LIMIT: Duration = Duration::from_secs(60);

/// Answers the requests of a session's first tunnel until no more can come, as a client does with the usual settings. Without
/// TLS on this machine, it answers none.
pub async fn serve_session(transport: Arc<dyn Transport>, service: LocalService) {
    let Ok(tls) = client_config(RootCertStore::empty()) else { return };
    let config = Config {
        target: Target::Service(service),
        tls,
        fingerprints: None,
        upgrades: Upgrades::default(),
        host_header: HostHeader::Preserve,
        connect_timeout: LIMIT,
        response_timeout: Some(LIMIT),
        log_queries: false,
        watch: Watch::new(Hub::new(), TunnelHandle(0)),
    };
    let (in_flight, routes) = (Arc::<InFlight>::default(), Arc::<Routes>::default());
    let Ok(proxy) = Proxy::new(config, in_flight.clone()) else { return };
    routes.add(0, Slot::new(proxy, in_flight));
    routes.serve(transport).await;
}
