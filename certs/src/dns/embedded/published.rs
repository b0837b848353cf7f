//! The part of a zone that changes: the values that are published, and the zone's serial number.

/// Values at once: a certificate needs two, and those that a killed process left are gone with it. More would only
/// make answers longer.
pub(super) const MOST_VALUES: usize = 32;

/// What changes in a zone.
#[derive(Clone, Debug)]
pub(super) struct Published {
    /// The TXT values, in the order in which they came.
    pub(super) values: Vec<String>,
    /// The SOA's serial; it grows with each change.
    pub(super) serial: u32,
}
