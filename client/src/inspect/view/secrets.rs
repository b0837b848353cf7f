//! What viewers see of secrets. Replays have them as they were.

use super::Secrets;

/// What stands in place of a secret.
pub(in crate::inspect) const MASK: &str = "•••";

/// What a viewer sees of a field's value instead, if that is a secret.
pub(in crate::inspect) fn field(_name: &str, _value: &[u8], _shown: Secrets) -> Option<Vec<u8>> {
    None
}

/// A target as viewers see it.
pub(in crate::inspect) fn target(target: &[u8], _shown: Secrets) -> String {
    String::from_utf8_lossy(target).into_owned()
}

/// An edited target with its masks replaced by what the original has in their places.
pub(in crate::inspect) fn unmasked_target(edited: &[u8], _original: &[u8]) -> Vec<u8> {
    edited.to_vec()
}
