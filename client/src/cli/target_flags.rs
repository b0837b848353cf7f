//! The flags about a target that `cok-client` and `cokd dev` share.

use std::path::PathBuf;

use crate::target_trust::{Fingerprint, TargetTrust};
use crate::upgrades::UpgradeProtocol;

/// How to treat the target of a tunnel.
#[derive(Clone, Debug, clap::Args)]
pub struct TargetFlags {
    /// Accept only this certificate from an `https://` TARGET on another machine, by the SHA-256 of its DER form, such as
    /// sha256:1f0e…; may be repeated
    #[arg(long, value_name = "FINGERPRINT", conflicts_with = "target_ca_file")]
    target_fingerprint: Vec<Fingerprint>,
    /// Accept what the authorities in this PEM file have signed from an `https://` TARGET on another machine, instead of the
    /// system's authorities
    #[arg(long, value_name = "PEM")]
    target_ca_file: Option<PathBuf>,
    /// Let requests switch to this protocol besides WebSocket, such as tcp or SPDY/3.1; may be repeated
    #[arg(long = "upgrade", value_name = "PROTOCOL")]
    upgrades: Vec<UpgradeProtocol>,
}

impl TargetFlags {
    /// Which certificates the target may show, if a flag says so.
    pub fn trust(&self) -> Option<TargetTrust> {
        match &self.target_ca_file {
            Some(path) => Some(TargetTrust::CaFile(path.clone())),
            None if self.target_fingerprint.is_empty() => None,
            None => Some(TargetTrust::Fingerprints(self.target_fingerprint.clone())),
        }
    }

    /// The protocols that it may switch to.
    pub fn upgrades(&self) -> impl Iterator<Item = UpgradeProtocol> {
        self.upgrades.iter().cloned()
    }
}
