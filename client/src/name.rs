//! The names of tunnels.

use cok_http::name::{MAX_LABEL, parse_label};

/// A name as the server knows it: one DNS label, in lower case.
pub(crate) fn check_subdomain(text: &str) -> Result<String, String> {
    parse_label(text)
        .map_err(|_| format!("\"{text}\" is not one label of 1 to {MAX_LABEL} letters, digits and inner hyphens"))
}
