//! Builds the DNS solver that the configuration names.

use std::sync::Arc;

use anyhow::Context as _;
use cok_certs::dns::Solver;
use cok_certs::dns::embedded::{Embedded, Zone};
use cok_certs::dns::exec::Exec;
use cok_certs::dns::httpreq::{self, HttpReq};
use cok_certs::dns::rfc2136::{self, Rfc2136};

use super::Read;
use super::config::{Dns, Tsig};

/// A solver, and the DNS responder if the solver is the embedded one.
pub(super) type Chosen = (Arc<dyn Solver>, Option<Arc<Embedded>>);

/// Builds the solver for a domain. `read` reads its secret.
pub(super) fn new(dns: &Dns, domain: &str, read: Read<'_>) -> anyhow::Result<Chosen> {
    Ok(match dns {
        Dns::Embedded(zone) => {
            let responder = Embedded::new(Zone::clone(zone));
            (responder.clone(), Some(responder))
        }
        Dns::Exec { program } => (Arc::new(Exec::new(domain, program.clone())), None),
        Dns::Rfc2136 { server, zone, tsig } => {
            let key = tsig.as_ref().map(|tsig| key(tsig, read)).transpose()?;
            let settings = rfc2136::Settings { server: server.clone(), zone: zone.clone(), key };
            (Arc::new(Rfc2136::new(domain, settings)?), None)
        }
        Dns::HttpReq { url, username, password_file, ca_file } => {
            let password = password_file.as_deref().map(read).transpose()?;
            let settings =
                httpreq::Settings { url: url.clone(), username: username.clone(), password, ca_file: ca_file.clone() };
            (Arc::new(HttpReq::new(domain, settings)?), None)
        }
        #[cfg(feature = "cloud-dns")]
        Dns::Cloud { provider, token_file, id, zone } => {
            let token = read(token_file)?;
            let settings = cok_certs::dns::cloud::Settings { token, id: id.clone(), zone: zone.clone() };
            (Arc::new(cok_certs::dns::cloud::Cloud::new(domain, provider, settings)?), None)
        }
        #[cfg(not(feature = "cloud-dns"))]
        Dns::Cloud { provider, .. } => anyhow::bail!("{provider} was not built in"),
    })
}

fn key(tsig: &Tsig, read: Read<'_>) -> anyhow::Result<rfc2136::Key> {
    let secret = read(&tsig.secret_file)?;
    rfc2136::Key::new(&tsig.name, &tsig.algorithm, &secret)
        .with_context(|| format!("the TSIG key {:?} from {}", tsig.name, tsig.secret_file.display()))
}
