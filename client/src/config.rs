//! The client's file: `~/.config/cok/client.toml`. Errors name every mistake with its key and line.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use cok_host::home;
use cok_host::settings::{Reader, Section, got, is_mistake};
use cok_proto::rate::{Rate, Unit};
use cok_proto::rules::{PathPrefix, parse_network};
use cok_transport::Congestion;
use ipnet::IpNet;

use crate::inspect::Inspect;
use crate::name::check_subdomain;
use crate::options::HostHeader;
use crate::outbound::ProxySetting;
use crate::server::Server;
use crate::target::Target;
use crate::target_trust::TargetTrust;
use crate::times::parse_interval;
use crate::transport::TransportChoice;
use crate::upgrades::UpgradeProtocol;

/// The words of the command line. A tunnel with such a name could not be opened by it. Some are kept for later commands.
pub(crate) const RESERVED: &[&str] = &[
    "completions",
    "config",
    "doctor",
    "har",
    "help",
    "http",
    "login",
    "man",
    "reload",
    "replay",
    "requests",
    "serve",
    "service",
    "share",
    "start",
    "status",
    "stop",
];

/// What the file says in place of a key. Files like this one are copied and shown.
const INLINE_KEY: &str = "the key itself does not belong into this file; `cok-client login` puts it into a file of its \
                          own, or do so yourself and name that by api_key_file";

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
    /// Whether and where requests are shown.
    pub(crate) inspect: Option<Inspect>,
    /// The proxy on the way to the daemon.
    pub(crate) proxy: Option<ProxySetting>,
    /// A file of authorities to trust instead of the system's; relative to this file's folder.
    pub(crate) ca_file: Option<PathBuf>,
    /// The tunnels by the names of their sections. A start without a target opens them all.
    pub(crate) tunnels: BTreeMap<String, FileTunnel>,
}

/// One tunnel of the file.
#[derive(Debug)]
pub(crate) struct FileTunnel {
    /// Where its requests go.
    pub(crate) source: Source,
    /// Its name; the section's if not given.
    pub(crate) subdomain: Option<String>,
    /// What the service sees as Host.
    pub(crate) host_header: Option<HostHeader>,
    /// Which certificates the service may show.
    pub(crate) target_trust: Option<TargetTrust>,
    /// Which protocols it may switch to.
    pub(crate) upgrades: Vec<UpgradeProtocol>,
    /// Which visitors it lets in.
    pub(crate) access: FileAccess,
}

/// Where a tunnel's requests go.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// To a local service.
    Target(Target),
    /// To the files of a folder; relative to the file's.
    Folder(PathBuf),
}

/// Which visitors a tunnel of the file lets in.
#[derive(Debug, Default)]
pub(crate) struct FileAccess {
    /// A file with a USER:PASSWORD on each line; relative to this file's folder.
    pub(crate) basic_auth_file: Option<PathBuf>,
    /// Whether share links let visitors in.
    pub(crate) share_links: bool,
    /// Networks that visitors may come from; none means all.
    pub(crate) allow_cidr: Vec<IpNet>,
    /// Networks that no visitor may come from.
    pub(crate) deny_cidr: Vec<IpNet>,
    /// Paths that visitors may ask for; none means all.
    pub(crate) allow_path: Vec<PathPrefix>,
    /// How often each visitor's address may ask.
    pub(crate) visitor_rate: Option<Rate>,
}

/// Why the file can't be used, a line for each mistake.
#[derive(Debug, thiserror::Error)]
pub(crate) struct ConfigError {
    mistakes: Vec<String>,
    may_pass: bool,
}

impl ConfigError {
    /// An error with one mistake.
    pub(crate) fn new(mistake: String) -> Self {
        Self::of(vec![mistake])
    }

    /// An error with these mistakes.
    pub(crate) fn of(mistakes: Vec<String>) -> Self {
        Self { mistakes, may_pass: false }
    }

    pub(crate) fn mistakes(&self) -> &[String] {
        &self.mistakes
    }

    /// True if the same file may load at the next try, since the system failed to read it.
    pub(crate) fn may_pass(&self) -> bool {
        self.may_pass
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.mistakes.join("; "))
    }
}

impl FileConfig {
    /// Reads the file. Only a file that the user has named must exist.
    pub(crate) fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = named.map(Path::to_owned).or_else(Self::usual_path) else { return Ok(Self::default()) };
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text, &path),
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(ConfigError {
                mistakes: vec![format!("cannot read the configuration {}: {error}", path.display())],
                may_pass: !is_mistake(&error),
            }),
        }
    }

    /// Where the file is unless the user names another; `None` without a home.
    pub(crate) fn usual_path() -> Option<PathBuf> {
        Some(home::config_folder()?.join("cok/client.toml"))
    }

    /// Reads a file's text. Relative paths in it are those of `path`'s folder.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let reader = Reader::new(text, &file);
        let config = reader.root().map(|root| Self::read(root, path.parent().unwrap_or(Path::new(""))));
        match (config, reader.mistakes()) {
            (Ok(config), mistakes) if mistakes.is_empty() => Ok(config),
            (_, mistakes) => Err(ConfigError::of(mistakes.iter().map(ToString::to_string).collect())),
        }
    }

    /// `folder` is the one of the file.
    fn read(mut root: Section<'_>, folder: &Path) -> Self {
        root.forbid("api_key", INLINE_KEY);
        let mut config = Self {
            server: root.text("server", |text| Server::from_str(text).map_err(|error| error.to_string())),
            api_key_file: root.path("api_key_file").map(|path| folder.join(path)),
            transport: root.text("transport", TransportChoice::parse),
            congestion: root.text("congestion", Congestion::from_str),
            probe_interval: root.text("probe_interval", parse_interval),
            inspect: root.text_or_whole("inspect", Inspect::from_str),
            proxy: root.text("proxy", ProxySetting::parse),
            ca_file: root.path("ca_file").map(|path| folder.join(path)),
            tunnels: BTreeMap::new(),
        };
        let mut taken = BTreeMap::new();
        for (name, section) in root.sections("tunnels", "NAME") {
            if let Some(tunnel) = FileTunnel::read(&name, section, folder, &mut taken) {
                config.tunnels.insert(name, tunnel);
            }
        }
        root.finish();
        config
    }
}

impl FileAccess {
    /// `folder` is the file's.
    fn read(section: &mut Section<'_>, folder: &Path) -> Self {
        let network = "a network such as \"192.0.2.0/24\"";
        let path = "a path such as \"/hooks\", without percent-encoding and *";
        let mut access = Self {
            basic_auth_file: section.path("basic_auth_file").map(|path| folder.join(path)),
            share_links: section.flag("share_links", false),
            allow_cidr: Vec::new(),
            deny_cidr: Vec::new(),
            allow_path: section.list("allow_path", path, |text| text.parse().ok()).unwrap_or_default(),
            visitor_rate: section.optional("visitor_rate", Unit::Count.example(), |text| {
                Rate::parse(text, Unit::Count).map_err(|_| got(text))
            }),
        };
        let networks = |section: &mut Section<'_>, key| section.list(key, network, |text| parse_network(text).ok());
        access.allow_cidr = networks(section, "allow_cidr").unwrap_or_default();
        access.deny_cidr = networks(section, "deny_cidr").unwrap_or_default();
        for key in ["allow_cidr", "allow_path"] {
            let empty = if key == "allow_path" { access.allow_path.is_empty() } else { access.allow_cidr.is_empty() };
            if section.has(key) && empty {
                section.mistake(key, "the list is empty, which would let all visitors in; leave the key out for that");
            }
        }
        access
    }
}

impl FileTunnel {
    /// A tunnel with a target and nothing else.
    pub(crate) fn new(target: Target) -> Self {
        Self {
            source: Source::Target(target),
            subdomain: None,
            host_header: None,
            target_trust: None,
            upgrades: Vec::new(),
            access: FileAccess::default(),
        }
    }

    /// `folder` is the file's; `taken` has the subdomains of earlier sections, each with its section.
    fn read(name: &str, mut section: Section<'_>, folder: &Path, taken: &mut BTreeMap<String, String>) -> Option<Self> {
        if RESERVED.contains(&name) {
            section.misnamed(&format!(
                "\"{name}\" is a command of the client; give the section another name, and set subdomain = \"{name}\""
            ));
        }
        let target = section.text_or_whole("target", |text| text.parse::<Target>().map_err(|error| error.to_string()));
        let mut subdomain = section.text("subdomain", check_subdomain);
        let host_header = section.text("host_header", HostHeader::from_str);
        let serve = section.path("serve").map(|path| folder.join(path));
        match (section.has("target"), section.has("serve")) {
            (false, false) => {
                section.mistake("target", "the key is missing; to serve files, name their folder by serve");
            }
            (true, true) => section.mistake("serve", "it excludes target; keep one of them"),
            _ => {}
        }
        let source = target.map(Source::Target).or(serve.map(Source::Folder));
        if !section.has("subdomain") {
            let unfit =
                |why| section.mistake("subdomain", &format!("the section's name does not fit: {why}; set this key"));
            subdomain = check_subdomain(name).map_err(unfit).ok();
        }
        if let Some(subdomain) = &subdomain
            && let Some(other) = taken.insert(subdomain.clone(), name.to_owned())
        {
            section.mistake("subdomain", &format!("[tunnels.{other}] has the name \"{subdomain}\" already"));
        }
        let ca_file = section.path("target_ca_file").map(|path| TargetTrust::CaFile(folder.join(path)));
        let fingerprint = "\"sha256:\" and 64 hexadecimal digits";
        let fingerprints = section.list("target_fingerprints", fingerprint, |text| text.parse().ok());
        if ca_file.is_some() && section.has("target_fingerprints") {
            section.mistake("target_fingerprints", "it excludes target_ca_file; keep one of them");
        }
        let protocol = "a protocol such as \"tcp\" or \"SPDY/3.1\", and not HTTP/2";
        let upgrades = section.list("upgrades", protocol, |text| text.parse().ok()).unwrap_or_default();
        let access = FileAccess::read(&mut section, folder);
        section.finish();
        let target_trust = ca_file.or(fingerprints.map(TargetTrust::Fingerprints));
        Some(Self { source: source?, subdomain, host_header, target_trust, upgrades, access })
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
            target = 3000
            [tunnels.api]
            target = "h2c://localhost:50051"
            subdomain = "Grpc"
            host_header = "rewrite"
            [tunnels.docs]
            serve = "site"
        "#;
        let config = FileConfig::parse(text, Path::new(PATH)).unwrap();
        assert_eq!(config.api_key_file.unwrap(), Path::new("/etc/cok/key"));
        assert_eq!((config.transport, config.congestion), (Some(TransportChoice::Ws), Some(Congestion::Cubic)));
        assert_eq!(config.probe_interval, Some(Duration::from_secs(60)));
        let Source::Target(target) = &config.tunnels["web"].source else { panic!("{:?}", config.tunnels["web"]) };
        assert_eq!(target.to_string(), "http://localhost:3000");
        let Source::Folder(folder) = &config.tunnels["docs"].source else { panic!("{:?}", config.tunnels["docs"]) };
        assert_eq!(folder, Path::new("/etc/cok/site"));
        let names = config.tunnels.iter().map(|(name, tunnel)| (name.as_str(), tunnel.subdomain.as_deref().unwrap()));
        assert_eq!(names.collect::<Vec<_>>(), [("api", "grpc"), ("docs", "docs"), ("web", "web")]);
    }

    #[test]
    fn the_file_of_the_package_needs_only_its_marks_taken_away() {
        let package = include_str!("../debian/client.toml").replace("\n#server", "\nserver").replace("\n#[", "\n[");
        let package = FileConfig::parse(&package.replace("\n#target", "\ntarget"), Path::new(PATH)).unwrap();
        assert!(package.server.is_some() && package.tunnels.contains_key("demo"));
    }

    #[test]
    fn every_mistake_is_named_with_its_key_and_line() {
        let text = "srever = \"x\"\nserver = 1\ntransport = \"pigeon\"\n\n[tunnels.web]\ntarget = \"ftp://x\"\n\
                    hots = 1\n[tunnels.-a]\ntarget = \"1\"\n[tunnels.-b]\nsubdomain = \"b\"\n[tunnels.c]\ntarget = \"login\"\n\
                    [tunnels.d]\ntarget = 70000\n[tunnels.status]\ntarget = true\n\
                    [tunnels.x]\ntarget = 1\n[tunnels.y]\ntarget = 2\nsubdomain = \"X\"\nserve = \"x\"\n";
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
            "/etc/cok/client.toml:15: tunnels.d.target: cannot forward to \"70000\"",
            "/etc/cok/client.toml:16: tunnels.status: \"status\" is a command of the client; give the section another name",
            "/etc/cok/client.toml:17: tunnels.status.target: expected a string or a whole number, got true",
            "/etc/cok/client.toml:22: tunnels.y.subdomain: [tunnels.x] has the name \"x\" already",
            "/etc/cok/client.toml:23: tunnels.y.serve: it excludes target",
        ];
        assert_eq!(error.mistakes().len(), starts.len(), "{:?}", error.mistakes());
        for (mistake, start) in error.mistakes().iter().zip(starts) {
            assert!(mistake.starts_with(start), "{mistake}");
        }
    }

    /// The manual page is made from the example.
    #[test]
    fn the_example_has_every_key_and_no_other() {
        let example = include_str!("../client.example.toml");
        FileConfig::parse(example, Path::new(PATH)).unwrap();
        let reader = Reader::new(example, PATH);
        FileConfig::read(reader.root().unwrap(), Path::new(""));
        let known: Vec<String> = reader.known().into_iter().filter(|key| key != "tunnels").collect();
        let mut documented = crate::cli::documented_keys();
        documented.sort();
        assert_eq!(documented, known);
    }

    #[test]
    fn the_example_shows_the_defaults() {
        let config = FileConfig::parse(include_str!("../client.example.toml"), Path::new(PATH)).unwrap();
        assert_eq!(config.transport, Some(TransportChoice::Auto));
        assert_eq!(config.congestion, Some(Congestion::default()));
        assert_eq!(config.probe_interval, Some(crate::transport::PROBE_INTERVAL));
        assert_eq!(config.inspect, Some(Inspect::USUAL));
        assert_eq!(config.tunnels["NAME"].host_header, Some(HostHeader::default()));
    }

    #[test]
    fn a_key_in_the_file_is_not_quoted_but_gets_a_hint() {
        let error = FileConfig::parse("api_key = \"cok_secret\"\napi_kei = 1\n", Path::new(PATH)).unwrap_err();
        let [inline, unknown] = error.mistakes() else { panic!("{error}") };
        assert!(inline.starts_with("/etc/cok/client.toml:1: api_key: ") && inline.contains("api_key_file"), "{inline}");
        assert!(!inline.contains("secret") && !unknown.contains("api_key,"), "{unknown}");
    }

    #[test]
    fn broken_syntax_is_one_mistake() {
        let error = FileConfig::parse("server = \"x\"\n[tunnels\n", Path::new(PATH)).unwrap_err();
        assert_eq!(error.mistakes().len(), 1);
        assert!(error.mistakes()[0].starts_with("/etc/cok/client.toml:2: "), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}
