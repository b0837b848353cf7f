//! The problems that an ACME server reports (RFC 8555, section 6.7), and the repetition of requests whose nonce it
//! rejected.
//!
//! It knows nothing of orders and accounts.

use instant_acme::{Error, Problem};

/// Repeats of a request after a rejected nonce, beyond the library's own three. Even a server that rejects half of all
/// nonces hardly ever rejects so many in a row.
pub(super) const MOST_NONCES: u32 = 20;

/// Repeats a request while the server rejects its nonce (RFC 8555, section 6.5). Such a request has had no effect.
macro_rules! past_bad_nonces {
    ($request:expr) => {{
        let mut tries = 0;
        loop {
            match $request.await {
                Err(error)
                    if $crate::acme::problem::is(&error, "badNonce") && tries < $crate::acme::problem::MOST_NONCES =>
                {
                    tries += 1;
                }
                other => break other,
            }
        }
    }};
}
pub(super) use past_bad_nonces;

/// True if the error is a problem of this kind, such as `badNonce`.
pub(super) fn is(error: &Error, kind: &str) -> bool {
    matches!(error, Error::Api(problem) if is_of_kind(problem, kind))
}

/// True if the problem is of this kind.
pub(super) fn is_of_kind(problem: &Problem, kind: &str) -> bool {
    problem.r#type.as_deref().and_then(|named| named.strip_prefix("urn:ietf:params:acme:error:")) == Some(kind)
}

/// True if the server refuses the account and not the request (RFC 8555, sections 7.3.1 and 7.3.6).
pub(super) fn refuses_account(error: &Error) -> bool {
    is(error, "accountDoesNotExist") || is(error, "unauthorized")
}
