//! Sees files as the daemon will: as the user of its service, inside the service's sandbox. `cokd check` asks it.
//!
//! It opens files and writes none.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use rustix::fs::{Access, access};
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::credentials;
use super::unit::{Credential, Unit};

/// A user that owns nothing: the first one that systemd gives to a service with `DynamicUser=`.
const DYNAMIC: u32 = 61184;

/// What the daemon would find at a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FileAccess {
    /// The file, or nothing at all.
    File(PathBuf),
    /// Nothing is known: it is a credential, or this user may not look.
    Unknown,
    /// It could not read it. The text says why, and what to do.
    Unreadable(String),
}

/// Looks at files with the rights of a user.
#[derive(Debug)]
pub(crate) struct ServiceView {
    /// Another user than that of this process.
    identity: Option<Identity>,
    /// The installed service.
    unit: Option<Unit>,
    /// How messages name the user.
    who: String,
    /// True if files are seen as this process's user, which is not the daemon's.
    guess: bool,
}

/// A user with its groups.
#[derive(Debug)]
struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl ServiceView {
    /// Looks with the rights of a user; without one, of the installed service if it runs with this configuration file, or
    /// else of this process.
    pub(crate) fn new(user: Option<&str>, config: &Path) -> anyhow::Result<Self> {
        let is_root = geteuid().is_root();
        if let Some(user) = user {
            let identity = Identity::named(user)?;
            let is_caller = identity.uid == geteuid();
            ensure!(is_root || is_caller, "only root can look with the rights of another user (--user)");
            let identity = (!is_caller).then_some(identity);
            return Self { identity, unit: None, who: format!("the user {user}"), guess: false }.tried();
        }
        // Inside the service everything is as it will be.
        let inside = std::env::var_os("CREDENTIALS_DIRECTORY").is_some();
        let unit = if inside { None } else { Unit::installed().filter(|unit| unit.runs_with(config)) };
        let own = format!("the user {}", geteuid().as_raw());
        let Some(unit) = unit else { return Ok(Self { identity: None, unit: None, who: own, guess: !is_root }) };
        if !is_root {
            return Ok(Self { identity: None, unit: Some(unit), who: own, guess: true });
        }
        let who = "the service's user (cokd.service)".to_owned();
        let identity = Identity::of(&unit)?;
        Self { identity, unit: Some(unit), who, guess: false }.tried()
    }

    /// Fails if it cannot become its user. A root without capabilities cannot.
    fn tried(self) -> anyhow::Result<Self> {
        self.act(|| Ok(())).with_context(|| format!("cannot look as {}", self.who))?;
        Ok(self)
    }

    /// What a reader of the results should know.
    pub(crate) fn note(&self) -> Option<String> {
        let service = self.unit.as_ref()?;
        let other = self.guess && (service.is_dynamic || !service.user.is_empty());
        other.then(|| "run this as root to check files and folders as the service's user sees them".to_owned())
    }

    /// Whether the installed service runs the daemon.
    pub(crate) fn is_service(&self) -> bool {
        self.unit.is_some()
    }

    /// What is at a path of the configuration. A relative one names a credential.
    pub(crate) fn look(&self, path: &Path) -> FileAccess {
        if let Some(unit) = self.unit.as_ref().filter(|_| path.is_relative()) {
            return match unit.credential(path) {
                Some(Credential::File(source)) if open(source).is_ok_and(|file| is_file(&file)) => {
                    FileAccess::File(source.to_owned())
                }
                Some(Credential::File(source)) if !source.exists() && !self.guess => {
                    let (name, source) = (path.display(), source.display());
                    FileAccess::Unreadable(format!("the credential {name} is missing: there is no file {source}"))
                }
                Some(_) => FileAccess::Unknown,
                None if unit.has_unlisted_credentials() => FileAccess::Unknown,
                None => {
                    let name = path.display();
                    FileAccess::Unreadable(format!(
                        "cokd.service has no credential {name}: set LoadCredential={name}:/PATH/{name} under [Service] by \
                         `systemctl edit cokd`"
                    ))
                }
            };
        }
        if let Some(setting) = self.unit.as_ref().and_then(|unit| unit.hides(path)) {
            return FileAccess::Unreadable(format!(
                "{} is hidden from the service ({setting}); {}",
                path.display(),
                advice(path)
            ));
        }
        let resolved = credentials::resolve(path);
        match self.act(|| open(&resolved)) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                if self.guess && self.unit.is_some() {
                    return FileAccess::Unknown;
                }
                FileAccess::Unreadable(format!("{} may not be read by {}; {}", path.display(), self.who, advice(path)))
            }
            // Only the service has it.
            Err(_) if path.is_relative() => FileAccess::Unknown,
            Ok(file) if !is_file(&file) => FileAccess::Unreadable(format!("{} is not a regular file", path.display())),
            Ok(_) | Err(_) => FileAccess::File(resolved),
        }
    }

    /// Why the daemon could not use a state directory; `None` if it could, as far as can be seen.
    pub(crate) fn state_dir_fault(&self, folder: &Path) -> Option<String> {
        let shown = folder.display();
        if folder.exists() && !folder.is_dir() {
            return Some(format!("{shown} is not a directory"));
        }
        if let Some(unit) = &self.unit {
            if let Err(allowed) = unit.may_write(folder) {
                let allowed: Vec<_> = allowed.iter().map(|folder| folder.display().to_string()).collect();
                return Some(format!(
                    "the service may not write to {shown}, only to {}; leave this out, or set ReadWritePaths={shown} under \
                     [Service] by `systemctl edit cokd`",
                    allowed.first().map_or("no folder", String::as_str)
                ));
            }
            if unit.makes(folder) {
                return None;
            }
        }
        if self.guess {
            return None;
        }
        // It is made below the nearest folder that is there.
        let nearest = folder.ancestors().find(|folder| folder.exists())?;
        let written = self.act(|| Ok(access(nearest, Access::WRITE_OK | Access::EXEC_OK)?));
        written.err().map(|error| format!("{} may not write to {}: {error}", self.who, nearest.display()))
    }

    /// Why the daemon could not make files in a folder that should be there; `None` if it could, as far as can be seen.
    pub(crate) fn folder_fault(&self, folder: &Path) -> Option<String> {
        let is_made = self.unit.as_ref().is_some_and(|unit| unit.makes(folder));
        if !is_made && !folder.exists() {
            return Some(format!("{} is not there", folder.display()));
        }
        self.state_dir_fault(folder)
    }

    /// Acts with the rights of the user: in a thread of its own, since Linux gives each thread its rights.
    ///
    /// An error of the change of user is of the kind `Other`, unlike one of the act.
    fn act<T: Send>(&self, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let Some(Identity { uid, gid, groups }) = &self.identity else { return act() };
        let acted = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                set_thread_groups(groups)
                    .and_then(|()| set_thread_res_gid(*gid, *gid, *gid))
                    // Without root's number the thread also loses root's capabilities.
                    .and_then(|()| set_thread_res_uid(*uid, *uid, *uid))
                    .map_err(|error| io::Error::other(format!("cannot change the user: {error}")))?;
                act()
            });
            thread.join()
        });
        acted.unwrap_or_else(|_| Err(io::Error::other("cannot look as another user")))
    }
}

impl Identity {
    /// The user of a unit; `None` for root.
    fn of(unit: &Unit) -> anyhow::Result<Option<Self>> {
        let named = !unit.user.is_empty();
        if !named && !unit.is_dynamic {
            return Ok(None);
        }
        let mut identity = match named.then(|| Self::named(&unit.user)) {
            Some(Ok(identity)) => identity,
            // systemd makes the user when the service starts.
            Some(Err(_)) | None if unit.is_dynamic => {
                Self { uid: Uid::from_raw(DYNAMIC), gid: Gid::from_raw(DYNAMIC), groups: Vec::new() }
            }
            Some(Err(error)) => return Err(error),
            None => return Ok(None),
        };
        identity.groups.extend(unit.groups.iter().filter_map(|group| number_of_group(group)).map(Gid::from_raw));
        Ok(Some(identity))
    }

    /// A user by name or number.
    fn named(user: &str) -> anyhow::Result<Self> {
        // The tool knows users from every source of this machine.
        let numbers = |option: &str| -> anyhow::Result<Vec<u32>> {
            let said = Command::new("id").args([option, "--", user]).stdin(Stdio::null()).output().context("id")?;
            let numbers: Vec<u32> =
                String::from_utf8_lossy(&said.stdout).split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect();
            ensure!(said.status.success() && !numbers.is_empty(), "there is no user {user:?} on this machine");
            Ok(numbers)
        };
        let known = || -> anyhow::Result<Self> {
            let groups = numbers("-G")?.into_iter().map(Gid::from_raw).collect();
            Ok(Self { uid: Uid::from_raw(numbers("-u")?[0]), gid: Gid::from_raw(numbers("-g")?[0]), groups })
        };
        known().or_else(|error| match user.parse() {
            // No name stands for it. A container's user has none. The highest number means "no change" to the kernel.
            Ok(number) if number != u32::MAX => {
                Ok(Self { uid: Uid::from_raw(number), gid: Gid::from_raw(number), groups: Vec::new() })
            }
            _ => Err(error),
        })
    }
}

fn number_of_group(group: &str) -> Option<u32> {
    if let Ok(number) = group.parse() {
        return Some(number);
    }
    let said = Command::new("getent").args(["group", group]).stdin(Stdio::null()).output().ok()?;
    String::from_utf8_lossy(&said.stdout).split(':').nth(2)?.parse().ok()
}

/// Opens a file to read. A pipe without a writer does not hold it up.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

fn is_file(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file())
}

/// How the service gets a file that its user may not read.
pub(crate) fn advice(path: &Path) -> String {
    let name = path.file_name().map_or(path, Path::new).display();
    format!(
        "say {:?} here, and LoadCredential={name}:{} under [Service] by `systemctl edit cokd`",
        name.to_string(),
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const CONFIG: &str = "/none/cokd.toml";

    fn view(user: Option<&str>) -> ServiceView {
        ServiceView::new(user, Path::new(CONFIG)).unwrap()
    }

    fn refusal(user: &str) -> String {
        ServiceView::new(Some(user), Path::new(CONFIG)).unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_seen_as_another_user_sees_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let key = folder.path().join("key.pem");
        fs::write(&key, "x").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        for nonsense in ["no-such-user-here", "4294967295", "-1"] {
            assert!(refusal(nonsense).contains(nonsense));
        }
        // The caller's own view needs no right.
        assert_eq!(view(Some(&geteuid().as_raw().to_string())).look(&key), FileAccess::File(key.clone()));
        if !geteuid().is_root() {
            // Only root may become another user.
            assert!(refusal("65534").contains("only root"));
            assert_eq!(view(None).look(&key), FileAccess::File(key));
            return;
        }
        let nobody = view(Some("65534"));
        let FileAccess::Unreadable(why) = nobody.look(&key) else { panic!("it is seen") };
        let loaded = format!("LoadCredential=key.pem:{}", key.display());
        assert!(why.contains("may not be read by the user 65534") && why.contains(&loaded), "{why}");
        assert!(nobody.state_dir_fault(&folder.path().join("state")).unwrap().contains("may not write"));
        // This thread is still root.
        assert_eq!(view(Some("0")).look(&key), FileAccess::File(key.clone()));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(nobody.look(&key), FileAccess::File(key.clone()));
        assert!(nobody.state_dir_fault(&key).unwrap().ends_with("is not a directory"));
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let FileAccess::Unreadable(why) = view(None).look(&pipe) else { panic!("it is seen") };
        assert!(why.ends_with("pipe is not a regular file"), "{why}");
    }

    #[test]
    fn a_credential_of_the_unit_is_seen_at_its_source() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("key.pem");
        fs::write(&source, "x").unwrap();
        let missing = folder.path().join("missing");
        let unit = Unit::with_credentials(&[("key.pem", &source), ("missing", &missing)]);
        let view = ServiceView { identity: None, unit: Some(unit), who: "it".to_owned(), guess: false };
        assert_eq!(view.look(Path::new("key.pem")), FileAccess::File(source));
        let FileAccess::Unreadable(why) = view.look(Path::new("missing")) else { panic!("it is seen") };
        assert!(why.contains(&missing.display().to_string()), "{why}");
        let FileAccess::Unreadable(why) = view.look(Path::new("cert.pem")) else { panic!("it is seen") };
        assert!(why.contains("LoadCredential=cert.pem:/PATH/cert.pem"), "{why}");
    }
}
