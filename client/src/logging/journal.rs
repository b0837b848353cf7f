//! The journal of systemd, where there is one.

pub(super) use self::system::{is_standard_error, layer};

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::os::unix::fs::MetadataExt as _;

    use tracing_journald::Layer;

    /// The prefix of our fields in the journal, as in `COK_EVENT`. It sets them apart from the journal's own.
    const FIELD_PREFIX: &str = "COK";

    /// What writes to the journal as `name`.
    pub(crate) fn layer(name: &str) -> io::Result<Layer> {
        let layer = tracing_journald::layer()?;
        Ok(layer.with_field_prefix(Some(FIELD_PREFIX.to_owned())).with_syslog_identifier(name.to_owned()))
    }

    /// Whether standard error is the journal's socket: `JOURNAL_STREAM` names its device and inode (systemd.exec(5)).
    pub(crate) fn is_standard_error() -> bool {
        let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
        std::fs::metadata("/proc/self/fd/2").is_ok_and(|data| named == format!("{}:{}", data.dev(), data.ino()))
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;

    use tracing_subscriber::layer::Identity;

    /// Fails.
    pub(crate) fn layer(_name: &str) -> io::Result<Identity> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux has one"))
    }

    /// There is none.
    pub(crate) fn is_standard_error() -> bool {
        false
    }
}
