//! DNS-01 (RFC 8555, section 8.4): TXT records that prove to an ACME server whose domain it is.
//!
//! Each way to publish them is a [`Solver`] in a file of its own.

mod client;
#[cfg(feature = "cloud-dns")]
pub mod cloud;
pub mod delegation;
pub mod embedded;
pub mod exec;
pub mod httpreq;
mod lookup;
mod propagation;
pub mod rfc2136;

#[cfg(test)]
#[path = "../tests/knot/mod.rs"]
mod knot;

use std::pin::Pin;

use hickory_proto::rr::Name;

/// A future behind a pointer, so that solvers can stand behind one trait.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Puts TXT records where an ACME server looks for them, and takes them away again. A solver knows the domain that it
/// was made for.
pub trait Solver: std::fmt::Debug + Send + Sync + 'static {
    /// Whether it can publish anything at all now. No order is placed while it cannot, so none fails.
    fn ready(&self) -> Result<(), SolverError> {
        Ok(())
    }

    /// Adds a value beside others at `_acme-challenge.<domain>`; resolves once it is published as far as the solver
    /// knows. A value that is there already is no error.
    fn present<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>>;

    /// Takes it away, and no other. A value that is not there is no error.
    fn cleanup<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>>;

    /// Resolves once the values can be seen where the server will look, or once waiting longer is of no use: it advises
    /// and never fails.
    fn settled<'a>(&'a self, _values: &'a [String]) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

/// Why a record could not be published or taken away, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SolverError {
    /// The operator has to change something: a file, a key of the configuration or a right at the DNS server.
    #[error("{0}")]
    Setup(String),
    /// The other side cannot be reached, is too slow or is out of order; trying again later may help.
    #[error("{0}")]
    Unavailable(String),
}

/// The name at which an ACME server looks for the records of a domain and of its wildcard, with the root's dot.
pub fn challenge_name(domain: &str) -> String {
    format!("_acme-challenge.{}.", domain.trim_end_matches('.'))
}

/// Whether a text is a DNS name, with the root's dot or without.
pub fn is_name(text: &str) -> bool {
    parse_name(text).is_ok()
}

/// A name in lower case, with the root's dot whether written or not; else what is wrong with it.
fn parse_name(text: &str) -> Result<Name, String> {
    let mut name = Name::from_ascii(text).map_err(|error| error.to_string())?;
    name.set_fqdn(true);
    if name.is_root() {
        return Err("it is empty".to_owned());
    }
    Ok(name.to_lowercase())
}
