//! The client and the tunnels that follow from the command line, the environment and the file. Flags beat the environment,
//! which beats the file.
//!
//! A reload makes the plan again. [`Plan::restarts`] and the tunnels say what has changed.

use std::collections::BTreeMap;
use std::mem;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use cok_host::{home, private_file};
use cok_proto::Rules;
use cok_transport::{Congestion, quic};
use tracing::{info, warn};

use super::args::Flags;
use super::failure::Usage;
use super::program::called;
use crate::config::{FileConfig, FileTunnel, Source};
use crate::doctor::{Exam, NoKey};
use crate::files::InvalidFolder;
use crate::inspect::Inspect;
use crate::instance::{instance_id, new_id};
use crate::name::check_subdomain;
use crate::options::{ClientOptions, HostHeader, TunnelOptions};
use crate::outbound::{self, Outbound, ProxyUrl};
use crate::server::Server;
use crate::service::LocalService;
use crate::target::{FORMS, Target};
use crate::target_trust::TargetTrust;
use crate::transport::{PROBE_INTERVAL, TransportChoice};
use crate::trust::{trust_file, trust_system};
use crate::upgrades::Upgrades;

/// The longest file or line with an API key, in bytes. A key has some 50.
pub(super) const LONGEST_KEY: u64 = 4096;

/// A tunnel's name in the file; `None` for the one of the command line.
pub(super) type Label = Option<String>;

/// Which tunnels the command line asks for.
#[derive(Clone, Debug)]
pub(super) enum Selection {
    /// One to this target.
    Target(Target),
    /// The one of the file with this name. The user may have meant a target or a command.
    Word(String),
    /// Those of the file with these names.
    Named(Vec<String>),
    /// All of the file.
    All,
}

/// What the command line asks for.
#[derive(Clone, Debug)]
pub(super) struct Invocation {
    selection: Selection,
    flags: Flags,
}

/// What to open.
#[derive(Debug)]
pub(super) struct Plan {
    /// What a running client cannot change.
    connection: Connection,
    /// The tunnels.
    pub(super) tunnels: BTreeMap<Label, Planned>,
}

/// The settings of the session.
#[derive(Debug, PartialEq, Eq)]
struct Connection {
    server: Server,
    key: String,
    transport: TransportChoice,
    congestion: Congestion,
    probe_interval: Duration,
    inspect: Inspect,
    /// The proxy on the way, and who has named it.
    proxy: Option<(ProxyUrl, &'static str)>,
    ca_file: Option<PathBuf>,
}

/// What becomes of a named tunnel that is not in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// It is a mistake.
    Refused,
    /// It is closed, if others are left.
    Gone,
}

/// One tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    /// Its name; without one the daemon picks.
    pub(super) subdomain: Option<String>,
    /// The local service.
    pub(super) target: Target,
    /// What the service sees as Host.
    pub(super) host_header: HostHeader,
    /// Which certificates the service may show.
    target_trust: TargetTrust,
    /// Which protocols it may switch to.
    upgrades: Upgrades,
    /// Which visitors the daemon lets in.
    pub(super) rules: Rules,
}

impl Invocation {
    pub(super) fn new(selection: Selection, flags: &Flags) -> Self {
        Self { selection, flags: flags.clone() }
    }

    /// Whether the tunnels are from the file, so that a reload can change them.
    pub(super) fn has_tunnels_of_file(&self) -> bool {
        !matches!(self.selection, Selection::Target(_))
    }

    /// Reads the environment and the file.
    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        self.read(Missing::Refused)
    }

    /// Reads them for a reload: named tunnels may be gone from the file, but not all.
    pub(super) fn plan_again(&self) -> anyhow::Result<Plan> {
        self.read(Missing::Gone)
    }

    fn read(&self, missing: Missing) -> anyhow::Result<Plan> {
        let flags = &self.flags;
        let mut file = FileConfig::load(flags.config.as_deref())?;
        let wanted = self.wanted(mem::take(&mut file.tunnels), missing)?;
        let connection = self.connection(&file, || self.key(&file))?;
        let subdomain = self.subdomain()?;
        if wanted.is_empty() {
            bail!("nothing to forward to: say {} 3000, or put [tunnels.NAME] into the configuration file", called());
        }
        if wanted.len() > 1 && subdomain.is_some() {
            let flag = if flags.url.is_some() { "--url" } else { "--subdomain" };
            bail!("{flag} names one tunnel, but the configuration file has {}", wanted.len());
        }
        let tunnels = wanted.into_iter().map(|(label, tunnel)| {
            let subdomain = subdomain.clone().or(tunnel.subdomain);
            let planned = Planned {
                rules: flags.access.rules(&tunnel.access, subdomain.as_deref(), || self.state_dir())?,
                subdomain,
                target: match tunnel.source {
                    Source::Target(target) => target,
                    Source::Folder(folder) => Target::Service(LocalService::folder(&folder)?),
                },
                host_header: flags.host_header.clone().or(tunnel.host_header).unwrap_or_default(),
                target_trust: flags.of_target.trust().or(tunnel.target_trust).unwrap_or_default(),
                upgrades: flags.of_target.upgrades().chain(tunnel.upgrades).collect(),
            };
            Ok((label, planned))
        });
        let tunnels = tunnels.collect::<anyhow::Result<BTreeMap<Label, Planned>>>()?;
        for planned in tunnels.values() {
            planned.target_trust.load(false)?;
        }
        Ok(Plan { connection, tunnels })
    }

    /// The settings of the session.
    fn connection(
        &self,
        file: &FileConfig,
        key: impl FnOnce() -> anyhow::Result<String>,
    ) -> anyhow::Result<Connection> {
        let flags = &self.flags;
        let named = match flags.server.clone().or_else(|| env("COK_SERVER")) {
            Some(server) => Some(Server::from_str(&server)?),
            None => file.server.clone(),
        };
        let server = named.or_else(|| flags.url.as_ref().map(|url| url.server.clone())).context(
            "no server: name one by --server https://tunnel.example.com, COK_SERVER or `server` in the configuration \
             file",
        )?;
        if let Some(url) = &flags.url {
            url.check(&server)?;
        }
        let transport = self.transport(file)?;
        let proxy = self.proxy(file, &server, transport)?;
        Ok(Connection {
            server,
            key: key()?,
            transport,
            proxy,
            congestion: flags.congestion.or(file.congestion).unwrap_or_default(),
            probe_interval: flags.probe_interval.or(file.probe_interval).unwrap_or(PROBE_INTERVAL),
            inspect: self.inspect(file)?,
            ca_file: flags.ca_file.as_ref().or(file.ca_file.as_ref()).cloned(),
        })
    }

    /// The proxy on the way to the server. A user who wants QUIC alone knows more than the environment, which is there for all
    /// programs.
    fn proxy(
        &self,
        file: &FileConfig,
        server: &Server,
        transport: TransportChoice,
    ) -> anyhow::Result<Option<(ProxyUrl, &'static str)>> {
        let flag = self.flags.proxy.as_deref();
        let Some((proxy, origin)) = outbound::choose(flag, env, file.proxy.as_ref(), server.address())? else {
            return Ok(None);
        };
        if transport == TransportChoice::Quic && outbound::is_of_environment(origin) {
            let why = format!("QUIC alone is wanted and passes no proxy, so the proxy {proxy} of {origin} is not used");
            info!(event = "proxy_left_out", "{why}");
            return Ok(None);
        }
        if transport == TransportChoice::Quic {
            bail!("QUIC does not pass the proxy {proxy} of {origin}; use --transport auto, or --proxy none");
        }
        let path = self.flags.config.clone().or_else(FileConfig::usual_path);
        if let Some(path) = path
            .filter(|path| origin == outbound::FILE && proxy.has_password() && private_file::is_readable_by_all(path))
        {
            let path = path.display();
            warn!(
                event = "readable_password",
                "all users of this machine can read the proxy's password in {path}; say chmod o-r {path}, or name the proxy \
                 in HTTPS_PROXY"
            );
        }
        Ok(Some((proxy, origin)))
    }

    /// What `doctor` examines. It does without a key and without tunnels, and takes no client's place.
    pub(super) fn exam(&self) -> anyhow::Result<Exam> {
        let mut file = FileConfig::load(self.flags.config.as_deref())?;
        let tunnels = self.wanted(mem::take(&mut file.tunnels), Missing::Refused)?;
        let key = self.key(&file);
        let no_key =
            key.as_ref().err().map(|why| NoKey { why: format!("{why:#}"), advice: self.way_to_key(&file, why) });
        let connection = self.connection(&file, || Ok(key.unwrap_or_default()))?;
        let options = self.options(&connection, new_id()?)?;
        let target = |source| match source {
            Source::Target(target) => Ok(target),
            Source::Folder(folder) => LocalService::folder(&folder).map(Target::Service),
        };
        let targets = tunnels.into_iter().map(|(label, tunnel)| Ok((label, target(tunnel.source)?)));
        let targets = targets.collect::<Result<Vec<_>, InvalidFolder>>()?;
        Ok(Exam { options, no_key, targets, measures: true })
    }

    /// The settings of the client.
    pub(super) fn client(&self, plan: &Plan) -> anyhow::Result<ClientOptions> {
        let instance = match self.state_dir() {
            Ok(state_dir) => instance_id(&state_dir)?,
            // Without a place to keep it, the id is new in every run.
            Err(_) => new_id()?,
        };
        self.options(&plan.connection, instance)
    }

    fn options(&self, connection: &Connection, instance: String) -> anyhow::Result<ClientOptions> {
        let flags = &self.flags;
        let tls = match &connection.ca_file {
            Some(path) => trust_file(path)?,
            None => trust_system()?,
        };
        let quic = quic::Dialer::new(&tls, &quic::Tuning { congestion: connection.congestion })?;
        let proxy = connection.proxy.clone();
        let proxy = proxy.map(|(proxy, origin)| Outbound::new(proxy, origin, connection.ca_file.as_deref()));
        if flags.connect_timeout.is_zero() {
            bail!("--connect-timeout must be more than 0");
        }
        Ok(ClientOptions {
            server: connection.server.clone(),
            connect_to: flags.connect_to,
            proxy: proxy.transpose()?,
            tls,
            transport: connection.transport,
            quic,
            congestion: connection.congestion,
            probe_interval: connection.probe_interval,
            key: connection.key.clone(),
            name_timeout: flags.name_timeout,
            keep_trying: flags.keep_trying,
            log_queries: flags.log_queries,
            instance,
        })
    }

    /// The settings of a tunnel.
    pub(super) fn tunnel(&self, label: &Label, planned: &Planned) -> TunnelOptions {
        let flags = &self.flags;
        TunnelOptions {
            label: label.clone(),
            subdomain: planned.subdomain.clone(),
            rules: planned.rules.clone(),
            target: planned.target.clone(),
            host_header: planned.host_header.clone(),
            target_trust: planned.target_trust.clone(),
            upgrades: planned.upgrades.clone(),
            response_timeout: (!flags.response_timeout.is_zero()).then_some(flags.response_timeout),
            connect_timeout: flags.connect_timeout,
        }
    }

    /// Where the client keeps its files.
    pub(super) fn state_dir(&self) -> anyhow::Result<PathBuf> {
        state_dir(self.flags.state_dir.as_deref())
    }

    /// The tunnels that the command line asks for. `named` are those of the file.
    fn wanted(
        &self,
        mut named: BTreeMap<String, FileTunnel>,
        missing: Missing,
    ) -> anyhow::Result<Vec<(Label, FileTunnel)>> {
        let words = match &self.selection {
            Selection::Target(target) => {
                let tunnel = FileTunnel::new(target.clone());
                return Ok(vec![(None, tunnel)]);
            }
            Selection::All => return Ok(named.into_iter().map(|(name, tunnel)| (Some(name), tunnel)).collect()),
            Selection::Word(word) => std::slice::from_ref(word),
            Selection::Named(names) => names,
        };
        let found = |word: &String| named.contains_key(word);
        if let Some(word) = words.iter().find(|word| !found(word))
            && !(missing == Missing::Gone && words.iter().any(found))
        {
            let names: Vec<&str> = named.keys().map(String::as_str).collect();
            let has = if names.is_empty() { "no tunnels".to_owned() } else { names.join(", ") };
            let why = format!("there is no tunnel \"{word}\": the configuration file has {has}");
            match self.selection {
                Selection::Word(_) => bail!("{why}; a TARGET looks like {FORMS}"),
                _ => bail!(why),
            }
        }
        Ok(words.iter().filter_map(|word| Some((Some(word.clone()), named.remove(word)?))).collect())
    }

    /// The name of the one tunnel, if the command line or the environment has one.
    fn subdomain(&self) -> anyhow::Result<Option<String>> {
        if let Some(url) = &self.flags.url {
            return Ok(Some(url.subdomain.clone()));
        }
        let name = self.flags.subdomain.clone().or_else(|| env("COK_SUBDOMAIN"));
        name.map(|name| check_subdomain(&name).map_err(|why| anyhow!("--subdomain: {why}"))).transpose()
    }

    fn transport(&self, file: &FileConfig) -> anyhow::Result<TransportChoice> {
        match (self.flags.transport, env("COK_TRANSPORT")) {
            (Some(transport), _) => Ok(transport),
            (None, Some(text)) => TransportChoice::parse(&text).map_err(|why| anyhow!("COK_TRANSPORT: {why}")),
            (None, None) => Ok(file.transport.unwrap_or(TransportChoice::Auto)),
        }
    }

    fn inspect(&self, file: &FileConfig) -> anyhow::Result<Inspect> {
        match (self.flags.inspect, env("COK_INSPECT")) {
            (Some(inspect), _) => Ok(inspect),
            (None, Some(text)) => text.parse().map_err(|why| anyhow!("COK_INSPECT: {why}")),
            (None, None) => Ok(file.inspect.unwrap_or(Inspect::USUAL)),
        }
    }

    /// What to do without a key.
    fn way_to_key(&self, file: &FileConfig, why: &anyhow::Error) -> &'static str {
        let flags = &self.flags;
        if why.root_cause().is::<std::io::Error>() {
            "correct the path of this file, or let this user read it"
        } else if flags.api_key.is_none()
            && flags.api_key_file.is_none()
            && env("COK_API_KEY").is_none()
            && file.api_key_file.is_none()
        {
            "ask the server's operator for a key"
        } else {
            "put the whole key there, alone in its line"
        }
    }

    fn key(&self, file: &FileConfig) -> anyhow::Result<String> {
        let flags = &self.flags;
        match (&flags.api_key, &flags.api_key_file, env("COK_API_KEY").as_ref(), &file.api_key_file) {
            (Some(key), ..) | (None, None, Some(key), _) => check_key(key),
            (None, Some(path), ..) | (None, None, None, Some(path)) => key_in(path),
            (None, None, None, None) => bail!(
                "no API key: `{} login` stores one; or give one by --api-key-file, COK_API_KEY or `api_key_file` in the \
                 configuration file",
                called()
            ),
        }
    }
}

/// The API key in a file.
pub(super) fn key_in(path: &Path) -> anyhow::Result<String> {
    let text = private_file::read(path, LONGEST_KEY).map(|text| String::from_utf8_lossy(&text).into_owned());
    check_key(&text.with_context(|| format!("cannot read the API key file {}", path.display()))?)
}

/// An API key without the space around it.
pub(super) fn check_key(text: &str) -> anyhow::Result<String> {
    let key = text.trim();
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("the API key is empty, or not one word of printable characters");
    }
    Ok(key.to_owned())
}

impl Planned {
    /// Whether requests go to the same service in the same way.
    pub(super) fn same_service(&self, other: &Self) -> bool {
        let service = |planned: &Self| Self { subdomain: None, rules: Rules::default(), ..planned.clone() };
        service(self) == service(other)
    }
}

impl Plan {
    /// Whether and where requests are shown.
    pub(super) fn inspect(&self) -> Inspect {
        self.connection.inspect
    }

    /// The settings that differ from those of a later plan, and that only a restart changes.
    pub(super) fn restarts(&self, later: &Self) -> Vec<&'static str> {
        let (old, new) = (&self.connection, &later.connection);
        let all = [
            ("server", old.server != new.server),
            ("the API key", old.key != new.key),
            ("transport", old.transport != new.transport),
            ("congestion", old.congestion != new.congestion),
            ("probe_interval", old.probe_interval != new.probe_interval),
            ("inspect", old.inspect != new.inspect),
            ("proxy", old.proxy != new.proxy),
            ("ca_file", old.ca_file != new.ca_file),
        ];
        all.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }
}

/// Where clients keep their files: here, or in the user's home.
pub(super) fn state_dir(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let folder = named.map(Path::to_owned).or_else(|| Some(home::state_folder()?.join("cok")));
    folder.ok_or_else(|| Usage("there is no home folder; name a place by --state-dir".to_owned()).into())
}

/// The value of an environment variable, unless it is empty.
pub(super) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
