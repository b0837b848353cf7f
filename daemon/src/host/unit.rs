//! What systemd's unit of the daemon lets it see and change, as far as `cokd check` asks.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The configuration file of an installed daemon.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/cokd/cokd.toml";
/// The unit of an installed daemon.
const UNIT: &str = "cokd.service";
/// The properties that are asked for.
const PROPERTIES: &str = "LoadState,ExecStart,User,Group,DynamicUser,SupplementaryGroups,ProtectSystem,ProtectHome,PrivateTmp,\
                          StateDirectory,LogsDirectory,ReadWritePaths";
/// Folders that `ProtectHome=yes` hides.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
/// Folders that `PrivateTmp=yes` replaces.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// The source of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    /// A file.
    File(PathBuf),
    /// Encrypted, in the unit itself, or from another service.
    Elsewhere,
}

/// The unit's settings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    /// The user that it names; empty for root.
    pub(crate) user: String,
    /// True if systemd makes a user for each run, which owns nothing.
    pub(crate) is_dynamic: bool,
    /// The groups that it names besides the user's own.
    pub(crate) groups: Vec<String>,
    /// The credentials that it passes.
    credentials: HashMap<String, Credential>,
    /// True if it passes further credentials, whose names are not in its files.
    has_unlisted_credentials: bool,
    /// The configuration file of its command line, if it names one.
    config: Option<PathBuf>,
    hides_homes: bool,
    hides_temporary: bool,
    /// The folders that it may write to, if all others are read-only.
    writable: Option<Vec<PathBuf>>,
}

impl Unit {
    /// Asks systemd. `None` if it does not run here, or has no such unit.
    pub(crate) fn installed() -> Option<Self> {
        if !Path::new("/run/systemd/system").exists() {
            return None;
        }
        // Credentials are in the unit's files alone.
        Self::parse(&systemctl(&["show", "--no-pager", "--property", PROPERTIES, UNIT]), &systemctl(&["cat", UNIT]))
    }

    /// Reads its properties, and the text of its files.
    fn parse(text: &str, files: &str) -> Option<Self> {
        let mut unit = Self::default();
        let (mut writable, mut strict) = (Vec::new(), false);
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let words = || value.split_ascii_whitespace();
            match name {
                "LoadState" if value != "loaded" => return None,
                "ExecStart" => unit.config = config_of(value),
                "User" => value.clone_into(&mut unit.user),
                "DynamicUser" => unit.is_dynamic = value == "yes",
                "Group" | "SupplementaryGroups" => unit.groups.extend(words().map(str::to_owned)),
                "ProtectSystem" => strict = value == "strict",
                "ProtectHome" => unit.hides_homes = matches!(value, "yes" | "tmpfs"),
                "PrivateTmp" => unit.hides_temporary = matches!(value, "yes" | "disconnected"),
                "StateDirectory" => writable.extend(words().flat_map(|name| made("/var/lib", name))),
                "LogsDirectory" => writable.extend(words().flat_map(|name| made("/var/log", name))),
                "ReadWritePaths" => {
                    writable.extend(words().map(|path| PathBuf::from(path.trim_start_matches(['-', '+']))));
                }
                _ => {}
            }
        }
        unit.writable = strict.then_some(writable);
        (unit.credentials, unit.has_unlisted_credentials) = credentials(files);
        text.contains("LoadState=loaded").then_some(unit)
    }

    /// A unit that passes these credentials.
    #[cfg(test)]
    pub(super) fn with_credentials(credentials: &[(&str, &Path)]) -> Self {
        let passed = credentials.iter().map(|(name, file)| ((*name).to_owned(), Credential::File((*file).to_owned())));
        Self { credentials: passed.collect(), ..Self::default() }
    }

    /// The source of a credential, if the unit passes it.
    pub(crate) fn credential(&self, name: &Path) -> Option<&Credential> {
        self.credentials.get(name.to_str()?)
    }

    /// True if credentials that its files do not name may be there.
    pub(crate) fn has_unlisted_credentials(&self) -> bool {
        self.has_unlisted_credentials
    }

    /// True if the service runs with this configuration file.
    pub(crate) fn runs_with(&self, config: &Path) -> bool {
        let own = self.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG));
        let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        whole(config) == whole(own)
    }

    /// The setting that hides a path from the service.
    pub(crate) fn hides(&self, path: &Path) -> Option<&'static str> {
        let within = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
        if self.hides_homes && within(&HOMES) {
            return Some("ProtectHome=");
        }
        (self.hides_temporary && within(&TEMPORARY)).then_some("PrivateTmp=")
    }

    /// Whether the service may write to a folder; if not, where it may.
    pub(crate) fn may_write(&self, folder: &Path) -> Result<(), &[PathBuf]> {
        match &self.writable {
            Some(writable) if !writable.iter().any(|allowed| folder.starts_with(allowed)) => Err(writable),
            _ => Ok(()),
        }
    }

    /// True if systemd itself makes the folder for the service.
    pub(crate) fn makes(&self, folder: &Path) -> bool {
        let is_own = |allowed: &PathBuf| allowed.starts_with("/var/lib") || allowed.starts_with("/var/log");
        let own = |allowed: &PathBuf| is_own(allowed) && folder == allowed;
        self.writable.as_ref().is_some_and(|writable| writable.iter().any(own))
    }
}

/// Where systemd makes a folder of a service: below `root`, and for a user of one run in a part of it.
fn made(root: &str, name: &str) -> [PathBuf; 2] {
    // Newer versions add a name after a colon.
    let name = name.split(':').next().unwrap_or_default();
    [Path::new(root).join(name), Path::new(root).join("private").join(name)]
}

/// The configuration file in a command line, as `systemctl show` prints it.
fn config_of(command: &str) -> Option<PathBuf> {
    let mut words = command.split_ascii_whitespace();
    let word = words.find(|word| *word == "--config" || word.starts_with("--config="))?;
    word.strip_prefix("--config=").or_else(|| words.next()).map(PathBuf::from)
}

/// The credentials in a unit's files, and whether it passes others.
fn credentials(files: &str) -> (HashMap<String, Credential>, bool) {
    let (mut passed, mut has_others) = (HashMap::new(), false);
    for (setting, value) in files.lines().filter_map(|line| line.trim().split_once('=')) {
        let (name, source) = value.trim().split_once(':').unwrap_or((value.trim(), ""));
        let source = match setting.trim_end() {
            "ImportCredential" => {
                has_others = true;
                continue;
            }
            // Each file in a folder is a credential.
            "LoadCredential" | "LoadCredentialEncrypted" if Path::new(source).is_dir() => {
                has_others = true;
                continue;
            }
            "LoadCredential" if source.starts_with('/') => Credential::File(PathBuf::from(source)),
            "LoadCredential" | "LoadCredentialEncrypted" | "SetCredential" | "SetCredentialEncrypted" => {
                Credential::Elsewhere
            }
            _ => continue,
        };
        if name.is_empty() {
            // An empty value takes back those before.
            passed.clear();
        } else {
            passed.insert(name.to_owned(), source);
        }
    }
    (passed, has_others)
}

/// What systemctl prints; nothing if there is none.
fn systemctl(arguments: &[&str]) -> String {
    let said = Command::new("systemctl").args(arguments).stdin(Stdio::null()).output();
    said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default()
}

/// The units that open the daemon's ports and are active, of those named.
pub(crate) fn active_sockets<'a>(units: &[&'a str]) -> Vec<&'a str> {
    if !Path::new("/run/systemd/system").exists() {
        return Vec::new();
    }
    let said = systemctl(&[&["is-active"], units].concat());
    units.iter().copied().zip(said.lines()).filter(|(_, state)| *state == "active").map(|(unit, _)| unit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "LoadState=loaded\nExecStart={ path=/usr/bin/cokd ; argv[]=/usr/bin/cokd run --config /srv/c.toml ; \
                         ignore_errors=no ; pid=0 }\nUser=cokd\nDynamicUser=yes\nSupplementaryGroups=ssl-cert\nProtectSystem=strict\n\
                         ProtectHome=yes\nPrivateTmp=yes\nStateDirectory=cokd\n\
                         LogsDirectory=cokd\nReadWritePaths=-/srv/cok\n";
    const FILES: &str = "# /lib/systemd/system/cokd.service\n[Service]\nUser=cokd\n#LoadCredential=off:/etc/off\n\
                         LoadCredential=first:/etc/first\nLoadCredential=\n\n# /etc/systemd/system/cokd.service.d/x.conf\n\
                         [Service]\nLoadCredential=cert.pem:/etc/cokd/private/cert.pem\nLoadCredential = key.pem:/etc/k\n\
                         LoadCredential=tsig\nSetCredential=token:secret\n";

    #[test]
    fn the_units_settings_are_read() {
        let unit = Unit::parse(SHOWN, FILES).unwrap();
        assert!(unit.is_dynamic && unit.groups == ["ssl-cert"]);
        let credential = |name: &str| unit.credential(Path::new(name));
        assert_eq!(credential("cert.pem"), Some(&Credential::File("/etc/cokd/private/cert.pem".into())));
        assert_eq!(credential("key.pem"), Some(&Credential::File("/etc/k".into())));
        for elsewhere in ["tsig", "token"] {
            assert_eq!(credential(elsewhere), Some(&Credential::Elsewhere), "{elsewhere}");
        }
        assert_eq!((credential("first"), credential("off"), credential("other")), (None, None, None));
        assert_eq!(unit.hides(Path::new("/root/key.pem")), Some("ProtectHome="));
        assert_eq!(unit.hides(Path::new("/tmp/key.pem")), Some("PrivateTmp="));
        assert_eq!(unit.hides(Path::new("/etc/key.pem")), None);
        for folder in ["/var/lib/cokd", "/var/lib/private/cokd/x", "/var/log/cokd", "/srv/cok"] {
            assert_eq!(unit.may_write(Path::new(folder)), Ok(()), "{folder}");
        }
        assert!(unit.may_write(Path::new("/var/lib/roots")).is_err());
        assert!(unit.makes(Path::new("/var/lib/cokd")) && unit.makes(Path::new("/var/log/cokd")));
        assert!(!unit.makes(Path::new("/srv/cok")) && !unit.makes(Path::new("/var/log/cokd/x")));
        assert!(unit.runs_with(Path::new("/srv/c.toml")) && !unit.runs_with(Path::new(DEFAULT_CONFIG)));
        assert!(Unit::default().runs_with(Path::new(DEFAULT_CONFIG)));
        assert!(!unit.has_unlisted_credentials());
        for more in ["ImportCredential=cok.*", "LoadCredential=keys:/etc"] {
            let unit = Unit::parse(SHOWN, &format!("{FILES}{more}\n")).unwrap();
            assert!(unit.has_unlisted_credentials() && unit.credential(Path::new("keys")).is_none(), "{more}");
        }
        assert_eq!(Unit::parse("LoadState=not-found\nUser=\n", ""), None);
        assert_eq!(Unit::parse("", ""), None);
    }
}
