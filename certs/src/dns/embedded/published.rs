//! The part of a zone that changes: the values that are published, and the zone's serial number.

/// The most values at once. A certificate needs two, and those of a killed process are gone with it. More would only
/// make answers longer.
pub(super) const MOST_VALUES: usize = 32;

/// The part of a zone that changes.
#[derive(Clone, Debug)]
pub(super) struct Published {
    /// The TXT values, the oldest first.
    pub(super) values: Vec<String>,
    /// The serial number of the SOA record. It grows with each change.
    pub(super) serial: u32,
}
