//! The client's file: `~/.config/cok/client.toml`. Every mistake in it is named with its key and line.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use cok_host::home;
use cok_transport::Congestion;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::options::HostHeader;
use crate::server::Server;
use crate::target::Target;
use crate::times::parse_interval;
use crate::transport::TransportChoice;
use crate::tunnel::check_subdomain;

/// The keys outside the tunnels' sections, as an unknown one's error names them.
const KEYS: &str = "server, api_key_file, ca_file, transport, congestion, probe_interval, tunnels";

/// What may stand in the file. Flags and the environment go above it.
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
    /// Whom to trust instead of the system's authorities; relative to this file's folder.
    pub(crate) ca_file: Option<PathBuf>,
    /// The tunnels by the names of their sections. A start without a target opens them all.
    pub(crate) tunnels: BTreeMap<String, FileTunnel>,
}

/// One tunnel of the file.
#[derive(Debug)]
pub(crate) struct FileTunnel {
    /// What it leads to.
    pub(crate) target: Target,
    /// Its name; the section's if not given.
    pub(crate) subdomain: Option<String>,
    /// What the service sees as Host.
    pub(crate) host_header: Option<HostHeader>,
}

/// Why there is no configuration: the file can't be read, or what is wrong with it, a line for each mistake.
#[derive(Debug, thiserror::Error)]
pub(crate) struct ConfigError(Vec<String>);

impl ConfigError {
    /// Of one mistake.
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
    /// Reads the file. One that was not named may be missing.
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
        let mut mistakes = Mistakes { text, path, found: Vec::new() };
        let config = match DeTable::parse(text) {
            Ok(table) => Self::read(table.into_inner(), &mut mistakes),
            Err(error) => {
                mistakes.add(error.span().unwrap_or(0..0), "", error.message());
                Self::default()
            }
        };
        mistakes.found.sort_by_key(|(line, _)| *line);
        if mistakes.found.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError(mistakes.found.into_iter().map(|(_, mistake)| mistake).collect()))
        }
    }

    fn read(table: DeTable<'_>, mistakes: &mut Mistakes<'_>) -> Self {
        let folder = mistakes.path.parent().unwrap_or(Path::new("")).to_owned();
        let file =
            |text: &str| if text.is_empty() { Err("a path is missing".to_owned()) } else { Ok(folder.join(text)) };
        let mut config = Self::default();
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "server" => {
                    config.server = mistakes
                        .string("server", &value, |text| Server::from_str(text).map_err(|error| error.to_string()));
                }
                "api_key_file" => config.api_key_file = mistakes.string("api_key_file", &value, file),
                "ca_file" => config.ca_file = mistakes.string("ca_file", &value, file),
                "transport" => config.transport = mistakes.string("transport", &value, TransportChoice::parse),
                "congestion" => config.congestion = mistakes.string("congestion", &value, Congestion::from_str),
                "probe_interval" => {
                    config.probe_interval = mistakes.string("probe_interval", &value, parse_interval);
                }
                "tunnels" => config.tunnels = Self::read_tunnels(value, mistakes),
                other => mistakes.unknown(&key, other, KEYS),
            }
        }
        config
    }

    fn read_tunnels(value: Spanned<DeValue<'_>>, mistakes: &mut Mistakes<'_>) -> BTreeMap<String, FileTunnel> {
        let span = value.span();
        let DeValue::Table(sections) = value.into_inner() else {
            mistakes.add(span, "tunnels", "expected sections [tunnels.NAME]");
            return BTreeMap::new();
        };
        let mut tunnels = BTreeMap::new();
        for (name, section) in sections {
            let prefix = format!("tunnels.{}", name.get_ref());
            let DeValue::Table(table) = section.into_inner() else {
                mistakes.add(name.span(), &prefix, &format!("expected a section [{prefix}]"));
                continue;
            };
            let tunnel = FileTunnel::read(&name, &prefix, table, mistakes);
            tunnels.extend(tunnel.map(|tunnel| (name.get_ref().to_string(), tunnel)));
        }
        tunnels
    }
}

impl FileTunnel {
    fn read(
        name: &Spanned<std::borrow::Cow<'_, str>>,
        prefix: &str,
        table: DeTable<'_>,
        mistakes: &mut Mistakes<'_>,
    ) -> Option<Self> {
        let (mut target, mut has_target, mut subdomain, mut host_header) = (None, false, None, None);
        for (key, value) in table {
            let full = format!("{prefix}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "target" => {
                    has_target = true;
                    target = mistakes
                        .string(&full, &value, |text| text.parse::<Target>().map_err(|error| error.to_string()));
                }
                "subdomain" => subdomain = mistakes.string(&full, &value, check_subdomain),
                "host_header" => host_header = mistakes.string(&full, &value, HostHeader::from_str),
                _ => mistakes.unknown(&key, &full, "target, subdomain, host_header"),
            }
        }
        if !has_target {
            mistakes.add(name.span(), &format!("{prefix}.target"), "the key is missing");
        }
        if subdomain.is_none() {
            match check_subdomain(name.get_ref()) {
                Ok(name) => subdomain = Some(name),
                Err(why) => {
                    mistakes.add(name.span(), prefix, &format!("{why}; say `subdomain` apart from the section's name"));
                }
            }
        }
        Some(Self { target: target?, subdomain, host_header })
    }
}

/// A text and what was found wrong with it so far, with the lines.
struct Mistakes<'a> {
    text: &'a str,
    path: &'a Path,
    found: Vec<(usize, String)>,
}

impl Mistakes<'_> {
    fn add(&mut self, span: Range<usize>, key: &str, message: &str) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        // What TOML's parser says may have several lines.
        let message = message.replace('\n', ", ");
        self.found.push((line, format!("{}:{line}: {key}{message}", self.path.display())));
    }

    fn unknown(&mut self, key: &Spanned<std::borrow::Cow<'_, str>>, name: &str, known: &str) {
        self.add(key.span(), name, &format!("unknown key; known here: {known}"));
    }

    /// A string that `parse` must accept.
    fn string<T>(
        &mut self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let parsed = match value.get_ref() {
            DeValue::String(text) => parse(text),
            other => Err(format!("expected a string, not {}", other.type_str())),
        };
        parsed.map_err(|why| self.add(value.span(), key, &why)).ok()
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
                    hots = 1\n[tunnels.-b]\nsubdomain = \"b\"\n[tunnels.c]\ntarget = \"login\"\n";
        let error = FileConfig::parse(text, Path::new(PATH)).unwrap_err();
        let starts = [
            "/etc/cok/client.toml:1: srever: unknown key",
            "/etc/cok/client.toml:2: server: expected a string",
            "/etc/cok/client.toml:3: transport: ",
            "/etc/cok/client.toml:6: tunnels.web.target: cannot forward to \"ftp://x\"",
            "/etc/cok/client.toml:7: tunnels.web.hots: unknown key",
            "/etc/cok/client.toml:8: tunnels.-b.target: the key is missing",
            "/etc/cok/client.toml:11: tunnels.c.target: cannot forward to \"login\"",
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
