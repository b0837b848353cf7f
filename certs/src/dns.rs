//! DNS-01 (RFC 8555, section 8.4): TXT records that prove to an ACME server who controls a domain.
//!
//! Each way to publish them is a [`Solver`] in its own file. When records are published is up to [`acme`](crate::acme).

mod client;
#[cfg(feature = "cloud-dns")]
pub mod cloud;
pub mod delegation;
pub mod embedded;
pub mod exec;
mod finding;
pub mod httpreq;
mod lookup;
mod propagation;
pub mod rfc2136;
pub mod visitors;

#[cfg(test)]
#[path = "../tests/knot/mod.rs"]
mod knot;

use std::pin::Pin;

use hickory_proto::rr::Name;

pub use self::finding::Finding;

/// A boxed future, so that solvers can share one trait.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Publishes TXT records where an ACME server looks for them, and removes them. Each solver is made for one domain.
pub trait Solver: std::fmt::Debug + Send + Sync + 'static {
    /// Checks that it can publish anything now. Otherwise no order is placed, so that none fails.
    fn ready(&self) -> Result<(), SolverError> {
        Ok(())
    }

    /// Adds a value at `_acme-challenge.<domain>` and keeps the others there. It resolves once the value is published,
    /// as far as the solver can tell. A value that exists is no error.
    fn present<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>>;

    /// Removes this value and no other. A missing value is no error.
    fn cleanup<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>>;

    /// Resolves once the values are visible where the server will look, or once waiting is useless. It never fails.
    fn settled<'a>(&'a self, _values: &'a [String]) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

/// Why a record could not be published or removed, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SolverError {
    /// The operator has to change something: a file, a setting, or a permission at the DNS server.
    #[error("{0}")]
    Setup(String),
    /// The other side is unreachable, slow or out of order. A later try may succeed.
    #[error("{0}")]
    Unavailable(String),
}

/// The name at which an ACME server looks for the records of a domain and its wildcard, with the final dot.
pub fn challenge_name(domain: &str) -> String {
    format!("_acme-challenge.{}.", domain.trim_end_matches('.'))
}

/// True if the text is a DNS name, with or without the final dot.
pub fn is_name(text: &str) -> bool {
    parse_name(text).is_ok()
}

/// Parses a name into lower case, with the final dot. The error says what to correct.
fn parse_name(text: &str) -> Result<Name, String> {
    let mut name = Name::from_ascii(text).map_err(|error| error.to_string())?;
    name.set_fqdn(true);
    if name.is_root() {
        return Err("it is empty".to_owned());
    }
    Ok(name.to_lowercase())
}
