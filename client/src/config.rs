//! The client's file: `~/.config/cok/client.toml`. Errors name every mistake with its key and line.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use cok_host::home;
use cok_host::settings::{Reader, Section};
use cok_transport::Congestion;

use crate::name::check_subdomain;
use crate::options::HostHeader;
use crate::server::Server;
use crate::target::Target;
use crate::times::parse_interval;
use crate::transport::TransportChoice;

/// The settings of the file. Flags and the environment beat them.
#[derive(Debug, Default)]
pub(crate) struct FileConfig {
    /// The daemon.
    pub(crate) server: Option<Server>,
    /// A file with the API key; relative to this file's folder.
    pub(crate) api_key_file: Option<PathBuf>,
    /// How to reach the daemon.
    pub(crate) transport: Option<TransportChoice>,
    /// The tunnel's congestion control.
    pub(crate) congestion: Option<Congestion>,
    /// How long a tunnel on WebSocket waits until it tries QUIC again.
    pub(crate) probe_interval: Option<Duration>,
    /// A file of authorities to trust instead of the system's; relative to this file's folder.
    pub(crate) ca_file: Option<PathBuf>,
    /// The tunnels by the names of their sections. A start without a target opens them all.
    pub(crate) tunnels: BTreeMap<String, FileTunnel>,
}

/// One tunnel of the file.
#[derive(Debug)]
pub(crate) struct FileTunnel {
    /// The local service.
    pub(crate) target: Target,
    /// Its name; the section's if not given.
    pub(crate) subdomain: Option<String>,
    /// What the service sees as Host.
    pub(crate) host_header: Option<HostHeader>,
}

/// Why the file can't be used, a line for each mistake.
#[derive(Debug, thiserror::Error)]
pub(crate) struct ConfigError(Vec<String>);

impl ConfigError {
    /// An error with one mistake.
    pub(crate) fn new(mistake: String) -> Self {
        Self(vec![mistake])
    }

    pub(crate) fn mistakes(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl FileConfig {
    /// Reads the file. Only a file that the user has named must exist.
    pub(crate) fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => match home::config_folder() {
                Some(home) => home.join("cok/client.toml"),
                None => return Ok(Self::default()),
            },
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text, &path),
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(ConfigError::new(format!("cannot read the configuration {}: {error}", path.display()))),
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let reader = Reader::new(text, &file);
        let config = reader.root().map(|root| Self::read(root, path.parent().unwrap_or(Path::new(""))));
        match (config, reader.mistakes()) {
            (Ok(config), mistakes) if mistakes.is_empty() => Ok(config),
            (_, mistakes) => Err(ConfigError(mistakes.iter().map(ToString::to_string).collect())),
        }
    }

    /// `folder` is the one of the file.
    fn read(mut root: Section<'_>, folder: &Path) -> Self {
        let config = Self {
            server: root.text("server", |text| Server::from_str(text).map_err(|error| error.to_string())),
            api_key_file: root.path("api_key_file").map(|path| folder.join(path)),
            transport: root.text("transport", TransportChoice::parse),
            congestion: root.text("congestion", Congestion::from_str),
            probe_interval: root.text("probe_interval", parse_interval),
            ca_file: root.path("ca_file").map(|path| folder.join(path)),
            tunnels: root
                .sections("tunnels", "NAME")
                .into_iter()
                .filter_map(|(name, section)| Some((name.clone(), FileTunnel::read(&name, section)?)))
                .collect(),
        };
        root.finish();
        config
    }
}

impl FileTunnel {
    fn read(name: &str, mut section: Section<'_>) -> Option<Self> {
        let target = section.text("target", |text| text.parse::<Target>().map_err(|error| error.to_string()));
        let mut subdomain = section.text("subdomain", check_subdomain);
        let host_header = section.text("host_header", HostHeader::from_str);
        if !section.has("target") {
            section.mistake("target", "the key is missing");
        }
        if !section.has("subdomain") {
            let unfit =
                |why| section.mistake("subdomain", &format!("the section's name does not fit: {why}; set this key"));
            subdomain = check_subdomain(name).map_err(unfit).ok();
        }
        section.finish();
        Some(Self { target: target?, subdomain, host_header })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/etc/cok/client.toml";

    #[test]
    fn a_whole_file() {
        let text = r#"
            server = "https://t.example"
            api_key_file = "key"
            transport = "ws"
            congestion = "cubic"
            probe_interval = "1min"
            [tunnels.web]
            target = "3000"
            [tunnels.api]
            target = "h2c://localhost:50051"
            subdomain = "Grpc"
            host_header = "rewrite"
        "#;
        let config = FileConfig::parse(text, Path::new(PATH)).unwrap();
        assert_eq!(config.api_key_file.unwrap(), Path::new("/etc/cok/key"));
        assert_eq!((config.transport, config.congestion), (Some(TransportChoice::Ws), Some(Congestion::Cubic)));
        assert_eq!(config.probe_interval, Some(Duration::from_secs(60)));
        let names = config.tunnels.iter().map(|(name, tunnel)| (name.as_str(), tunnel.subdomain.as_deref().unwrap()));
        assert_eq!(names.collect::<Vec<_>>(), [("api", "grpc"), ("web", "web")]);
    }

    #[test]
    fn every_mistake_is_named_with_its_key_and_line() {
        let text = "srever = \"x\"\nserver = 1\ntransport = \"pigeon\"\n\n[tunnels.web]\ntarget = \"ftp://x\"\n\
                    hots = 1\n[tunnels.-a]\ntarget = \"1\"\n[tunnels.-b]\nsubdomain = \"b\"\n[tunnels.c]\ntarget = \"login\"\n";
        let error = FileConfig::parse(text, Path::new(PATH)).unwrap_err();
        let starts = [
            "/etc/cok/client.toml:1: srever: unknown key",
            "/etc/cok/client.toml:2: server: expected a string, got 1",
            "/etc/cok/client.toml:3: transport: ",
            "/etc/cok/client.toml:6: tunnels.web.target: cannot forward to \"ftp://x\"",
            "/etc/cok/client.toml:7: tunnels.web.hots: unknown key",
            "/etc/cok/client.toml:8: tunnels.-a.subdomain: the section's name does not fit: \"-a\" is not one label",
            "/etc/cok/client.toml:10: tunnels.-b.target: the key is missing",
            "/etc/cok/client.toml:13: tunnels.c.target: cannot forward to \"login\"",
        ];
        assert_eq!(error.mistakes().len(), starts.len(), "{:?}", error.mistakes());
        for (mistake, start) in error.mistakes().iter().zip(starts) {
            assert!(mistake.starts_with(start), "{mistake}");
        }
    }

    #[test]
    fn broken_syntax_is_one_mistake() {
        let error = FileConfig::parse("server = \"x\"\n[tunnels\n", Path::new(PATH)).unwrap_err();
        assert_eq!(error.mistakes().len(), 1);
        assert!(error.mistakes()[0].starts_with("/etc/cok/client.toml:2: "), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}
