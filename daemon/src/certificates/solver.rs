//! The solver that the configuration asks for.

use std::sync::Arc;

use cok_certs::dns::Solver;
use cok_certs::dns::embedded::{Embedded, Zone};

use crate::config::Dns;

/// A solver, and the responder if it is that.
pub(super) type Chosen = (Arc<dyn Solver>, Option<Arc<Embedded>>);

/// The one for a domain.
pub(super) fn new(dns: &Dns, _domain: &str) -> anyhow::Result<Chosen> {
    Ok(match dns {
        Dns::Embedded(zone) => {
            let responder = Embedded::new(Zone::clone(zone));
            (responder.clone(), Some(responder))
        }
        _ => anyhow::bail!("not yet"),
    })
}
