//! `cok-client config`: changes, checks and finds the configuration file.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use cok_host::private_file;
use cok_host::say;
use toml_edit::{DocumentMut, Item, RawString, Table, Value};

use super::access_flags::AccessFlags;
use super::failure::Usage;
use super::plan::key_in;
use super::program::called;
use crate::config::{ConfigError, FileConfig, Source};
use crate::service::LocalService;
use crate::trust::trust_file;

/// What to do with the file.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Set keys of the file. It is written only if all of it is right then; comments stay
    Set {
        /// A key and its value, such as server=https://tunnel.example.com or tunnels.web.target=3000. Without a value,
        /// the key is removed
        #[arg(value_name = "KEY=VALUE", required = true)]
        settings: Vec<String>,
        #[command(flatten)]
        file: FileArgs,
    },
    /// Check the file, and the files and folders that it names; names every mistake, with exit code 2
    Check(FileArgs),
    /// Print the file's path
    Path(FileArgs),
}

/// Which file.
#[derive(Debug, clap::Args)]
pub(super) struct FileArgs {
    /// The configuration file [default: ~/.config/cok/client.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Takes a setting apart. No message quotes it, since it may have a key.
fn key_and_value(setting: &str) -> Result<(&str, &str), Usage> {
    let wrong = || Usage("expected KEY=VALUE, such as server=https://tunnel.example.com".to_owned());
    let (key, value) = setting.split_once('=').ok_or_else(wrong)?;
    if key == "api_key" {
        let advice = format!("other users see command lines: say `{} login` instead, which asks for the key", called());
        return Err(Usage(advice));
    }
    Ok((key, value))
}

/// The path of the file that the user names, or of the usual one.
pub(super) fn path_of(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = named.map(Path::to_owned).or_else(FileConfig::usual_path);
    path.ok_or_else(|| Usage("there is no home folder; name a file by --config".to_owned()).into())
}

/// Runs a subcommand.
pub(super) fn run(command: &ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Set { settings, file } => {
            let path = path_of(file.config.as_deref())?;
            let mut edited = Edited::open(&path)?;
            for setting in settings {
                let (key, value) = key_and_value(setting)?;
                edited.set(key, value)?;
            }
            edited.check()?;
            edited.write()?;
            say!("wrote {}", path.display());
        }
        ConfigCommand::Check(file) => {
            for line in check(&path_of(file.config.as_deref())?)? {
                say!("{line}");
            }
        }
        ConfigCommand::Path(file) => say!("{}", path_of(file.config.as_deref())?.display()),
    }
    Ok(())
}

/// Checks the file and what it names. Returns what to say about a file without mistakes.
fn check(path: &Path) -> anyhow::Result<Vec<String>> {
    let config = FileConfig::load(Some(path))?;
    let mut mistakes = Vec::new();
    let mut add =
        |key: &str, why: String| mistakes.push(format!("{}: {key}: {}", path.display(), why.replace('\n', " ")));
    if let Some(Err(error)) = config.api_key_file.as_deref().map(key_in) {
        add("api_key_file", format!("{error:#}"));
    }
    if let Some(Err(error)) = config.ca_file.as_deref().map(trust_file) {
        add("ca_file", format!("{:#}", anyhow::Error::from(error)));
    }
    for (name, tunnel) in &config.tunnels {
        if let Source::Folder(folder) = &tunnel.source
            && let Err(error) = LocalService::folder(folder)
        {
            add(&format!("tunnels.{name}.serve"), error.to_string());
        }
        if let Some(Err(error)) = tunnel.target_trust.as_ref().map(|trust| trust.load(false)) {
            add(&format!("tunnels.{name}.target_ca_file"), format!("{:#}", anyhow::Error::from(error)));
        }
        if let Some(file) = &tunnel.access.basic_auth_file
            && let Err(error) = AccessFlags::from_file(file)
        {
            add(&format!("tunnels.{name}.basic_auth_file"), format!("{error:#}"));
        }
    }
    if !mistakes.is_empty() {
        return Err(ConfigError::of(mistakes).into());
    }
    let mut lines = vec![format!("{}: no mistakes", path.display())];
    match &config.server {
        Some(server) => lines.push(format!("server: {server}")),
        None => lines.push("server: none; a start needs --server or COK_SERVER".to_owned()),
    }
    match &config.api_key_file {
        Some(file) => lines.push(format!("API key: in {}", file.display())),
        None => lines.push(format!("API key: none; `{} login` stores one", called())),
    }
    if !config.tunnels.is_empty() {
        lines.push(format!("tunnels: {}", config.tunnels.keys().cloned().collect::<Vec<_>>().join(", ")));
    }
    Ok(lines)
}

/// The file with changes that are not written yet. What is not changed keeps its form and its comments.
#[derive(Debug)]
pub(super) struct Edited {
    path: PathBuf,
    document: DocumentMut,
    config: FileConfig,
}

impl Edited {
    /// Reads a file, which may be missing. Its mistakes do not count yet: a change may mend them.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("cannot read the configuration {}", path.display()))?,
        };
        let config = FileConfig::parse(&text, path);
        let document = match text.parse::<DocumentMut>() {
            Ok(document) => document,
            // The reader says the same with the line.
            Err(error) => {
                config?;
                return Err(ConfigError::new(format!("{}: {}", path.display(), error.message())).into());
            }
        };
        Ok(Self { path: path.to_owned(), document, config: config.unwrap_or_default() })
    }

    /// What the file says without the changes; nothing if it has mistakes.
    pub(super) fn config(&self) -> &FileConfig {
        &self.config
    }

    /// Sets a key, with its sections before it, or removes it if the value is empty.
    pub(super) fn set(&mut self, key: &str, value: &str) -> anyhow::Result<()> {
        let wrong = || Usage(format!("cannot set {key:?}: expected a key such as server or tunnels.web.target"));
        let mut names: Vec<&str> = key.split('.').collect();
        let last = names.pop().filter(|last| !last.is_empty()).ok_or_else(wrong)?;
        if value.is_empty() {
            return removed(&mut self.document, &names, last).ok_or_else(|| wrong().into());
        }
        let mut table: &mut Table = self.document.as_table_mut();
        for name in names {
            if name.is_empty() {
                return Err(wrong().into());
            }
            let mut section = Table::new();
            // [tunnels.web] needs no [tunnels].
            section.set_implicit(true);
            table = table.entry(name).or_insert(Item::Table(section)).as_table_mut().ok_or_else(wrong)?;
        }
        let mut value = parsed(value);
        match table.get_mut(last).and_then(Item::as_value_mut) {
            Some(old) => {
                // The comment behind the old value stays.
                *value.decor_mut() = old.decor().clone();
                *old = value;
            }
            None => drop(table.insert(last, Item::Value(value))),
        }
        Ok(())
    }

    /// Fails with every mistake that the file would have.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        FileConfig::parse(&self.document.to_string(), &self.path).map(drop)
    }

    /// Replaces the file, whole or not at all.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        private_file::replace(&self.path, self.document.to_string().as_bytes())
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Removes a key if it is there. The comments above it stay, above what follows. `None` if a value stands where a section should.
fn removed(document: &mut DocumentMut, sections: &[&str], last: &str) -> Option<()> {
    let mut table = document.as_table_mut();
    for name in sections {
        if name.is_empty() {
            return None;
        }
        match table.get_mut(name) {
            Some(section) => table = section.as_table_mut()?,
            None => return Some(()),
        }
    }
    let is_value = |item: &Item| item.is_value();
    let next = {
        let mut later = table.iter().skip_while(|(name, _)| *name != last).skip(1);
        later.find(|(_, item)| is_value(item)).map(|(name, _)| name.to_owned())
    };
    let (own, Some((key, item))) = (table.position(), table.remove_entry(last)) else { return Some(()) };
    let (above, place) = match &item {
        Item::Table(section) => (section.decor().prefix(), section.position()),
        _ => (key.leaf_decor().prefix(), own),
    };
    let above = above.and_then(RawString::as_str).unwrap_or_default();
    if !above.contains('#') {
        return Some(());
    }
    let with = |below: Option<&RawString>| format!("{above}{}", below.and_then(RawString::as_str).unwrap_or_default());
    if is_value(&item)
        && let Some(mut next) = next.as_deref().and_then(|next| table.key_mut(next))
    {
        let text = with(next.leaf_decor().prefix());
        next.leaf_decor_mut().set_prefix(text);
    } else if let Some(section) = section_after(document.as_table_mut(), place) {
        let text = with(section.decor().prefix());
        section.decor_mut().set_prefix(text);
    } else {
        let text = with(Some(document.trailing()));
        document.set_trailing(text);
    }
    Some(())
}

/// The first section with a header behind this place in the file.
fn section_after(table: &mut Table, place: Option<isize>) -> Option<&mut Table> {
    let mut found: Option<&mut Table> = None;
    for (_, item) in table.iter_mut() {
        let Some(section) = item.as_table_mut() else { continue };
        let own = section.position().filter(|own| !section.is_implicit() && place.is_none_or(|place| *own > place));
        let candidate = if own.is_some() { Some(section) } else { section_after(section, place) };
        if let Some(candidate) = candidate
            && found.as_ref().is_none_or(|found| candidate.position() < found.position())
        {
            found = Some(candidate);
        }
    }
    found
}

/// A value as the file has it. Yes, no and lists are written as TOML has them; all else is text.
fn parsed(text: &str) -> Value {
    let is_toml = matches!(text, "true" | "false") || text.starts_with('[');
    let value = if is_toml { text.parse().ok() } else { None };
    value.unwrap_or_else(|| Value::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.toml");
        std::fs::write(
            &path,
            "# mine\nserver = \"https://a.example\"   # old\n\n[tunnels.web]\ntarget = 3000 # port\n",
        )
        .unwrap();
        let mut edited = Edited::open(&path).unwrap();
        for (key, value) in [
            ("server", "https://b.example"),
            ("transport", "ws"),
            ("tunnels.web.share_links", "true"),
            ("tunnels.web.allow_cidr", "[\"10.0.0.0/8\"]"),
            ("tunnels.api.target", "h2c://localhost:1"),
            ("tunnels.web.nothing", ""),
        ] {
            edited.set(key, value).unwrap();
        }
        edited.check().unwrap();
        edited.write().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "# mine\nserver = \"https://b.example\"   # old\ntransport = \"ws\"\n\n[tunnels.web]\ntarget = 3000 # port\n\
             share_links = true\nallow_cidr = [\"10.0.0.0/8\"]\n\n[tunnels.api]\ntarget = \"h2c://localhost:1\"\n"
        );
        let mut edited = Edited::open(&path).unwrap();
        edited.set("transport", "").unwrap();
        edited.set("serber", "x").unwrap();
        let error = edited.check().unwrap_err();
        assert!(error.to_string().contains("serber: unknown key; did you mean \"server\"?"), "{error}");
        for key in ["", ".", "a.", ".a", "server.x", "tunnels.web.target.x"] {
            assert!(Edited::open(&path).unwrap().set(key, "x").is_err(), "{key}");
        }
    }

    #[test]
    fn comments_above_a_removed_key_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.toml");
        let text = "# first\nserver = \"https://a.example\"\n# second\ntransport = \"ws\"\n\n# web\n[tunnels.web]\n\
                    # port\ntarget = 3000\n\n# api\n[tunnels.api]\n# last\ntarget = 1\n# end\n";
        std::fs::write(&path, text).unwrap();
        for (key, expected) in [
            ("server", text.replace("server = \"https://a.example\"\n", "")),
            ("transport", text.replace("transport = \"ws\"\n", "")),
            ("tunnels.web.target", text.replace("target = 3000\n", "")),
            ("tunnels.api.target", text.replace("target = 1\n", "")),
            ("tunnels.web", text.replace("[tunnels.web]\n# port\ntarget = 3000\n", "")),
            ("tunnels.api", text.replace("[tunnels.api]\n# last\ntarget = 1\n", "")),
            ("tunnels.none.target", text.to_owned()),
            ("nothing", text.to_owned()),
        ] {
            let mut edited = Edited::open(&path).unwrap();
            edited.set(key, "").unwrap();
            assert_eq!(edited.document.to_string(), expected, "{key}");
        }
        assert!(Edited::open(&path).unwrap().set("server.x", "").is_err());
    }

    #[test]
    fn a_key_is_not_set_on_the_command_line() {
        let why = key_and_value("api_key=cok_secret").unwrap_err().to_string();
        assert!(why.contains("login") && !why.contains("secret"), "{why}");
    }
}
