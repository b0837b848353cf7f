//! The client's file: `~/.config/cok/client.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde::Deserialize;

/// What may stand in the file. Flags and the environment go above it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileConfig {
    /// The daemon.
    pub(crate) server: Option<String>,
    /// A file with the API key; relative to this file's folder.
    pub(crate) api_key_file: Option<PathBuf>,
    /// `auto`, `quic` or `ws`.
    pub(crate) transport: Option<String>,
    /// Whom to trust instead of the system's authorities; relative to this file's folder.
    pub(crate) ca_file: Option<PathBuf>,
    /// The tunnels that a start without a target opens.
    #[serde(default)]
    pub(crate) tunnels: BTreeMap<String, FileTunnel>,
}

/// One tunnel of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileTunnel {
    /// What it leads to.
    pub(crate) target: String,
    /// Its name; the section's if not given.
    pub(crate) subdomain: Option<String>,
    /// What the service sees as Host.
    pub(crate) host_header: Option<String>,
}

impl FileConfig {
    /// Reads the file. One that was not named may be missing.
    pub(crate) fn load(named: Option<&Path>) -> anyhow::Result<Self> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => match config_home() {
                Some(home) => home.join("cok/client.toml"),
                None => return Ok(Self::default()),
            },
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read the configuration {}", path.display()));
            }
        };
        Self::parse(&text, &path)
    }

    fn parse(text: &str, path: &Path) -> anyhow::Result<Self> {
        let mut config: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = text.get(..at).unwrap_or(text).matches('\n').count() + 1;
            anyhow!("{}:{line}: {}", path.display(), error.message())
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for file in [&mut config.api_key_file, &mut config.ca_file].into_iter().flatten() {
            *file = folder.join(&*file);
        }
        Ok(config)
    }
}

fn config_home() -> Option<PathBuf> {
    home_folder("XDG_CONFIG_HOME", ".config")
}

/// A folder of the user's, by the XDG base directory specification.
pub(crate) fn home_folder(variable: &str, default: &str) -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(default)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_mistakes_named() {
        let path = Path::new("/etc/cok/client.toml");
        let config = FileConfig::parse(
            "server = \"https://t.example\"\napi_key_file = \"key\"\n[tunnels.web]\ntarget = \"3000\"\n",
            path,
        )
        .unwrap();
        assert_eq!(config.api_key_file.unwrap(), Path::new("/etc/cok/key"));
        assert_eq!(config.tunnels["web"].target, "3000");
        for (text, said) in [
            ("server = \"x\"\nsrever = 1\n", "client.toml:2: unknown field `srever`"),
            ("server = 1\n", "client.toml:1: invalid type"),
            ("[tunnels.web]\n", "client.toml:1: missing field `target`"),
        ] {
            let error = FileConfig::parse(text, path).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
