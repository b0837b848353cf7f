//! What cok's programs ask of their machine in the same way: files of settings, private files, folders, trust roots,
//! dialling.
//!
//! It knows nothing of tunnels, of our own certificates, or of any program's settings.

pub mod columns;
pub mod dial;
pub mod figures;
pub mod harmless;
pub mod home;
mod modes;
pub mod output;
pub mod private_file;
pub mod quoted;
pub mod secret_file;
pub mod settings;
#[cfg(feature = "terminal")]
pub mod styled;
pub mod trust;
