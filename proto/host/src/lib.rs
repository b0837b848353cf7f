//! What cok's programs ask of their machine in the same way: private files, folders, trust roots, dialling.
//!
//! It knows nothing of tunnels, certificates of our own, or configuration.

pub mod dial;
pub mod home;
pub mod private_file;
pub mod trust;
