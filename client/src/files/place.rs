//! Finds what a request's path leads to, beneath the folder.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use percent_encoding::percent_decode_str;

use super::listing;

/// The page that stands for its folder.
const INDEX: &str = "index.html";

/// What is at a path.
pub(super) enum Found {
    /// A file.
    File(OpenFile),
    /// A folder without an index page: the page that lists it.
    Listing(String),
    /// A folder, asked for without the slash.
    Folder,
    /// Nothing that is served, and why, for the owner.
    Nothing(String),
}

/// An open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) file: File,
    pub(super) metadata: Metadata,
    /// Its name says what it contains.
    name: PathBuf,
}

impl OpenFile {
    /// The media type. Text is taken for UTF-8.
    pub(super) fn kind(&self) -> String {
        let kind = mime_guess::from_path(&self.name).first_or_octet_stream();
        let kind = kind.essence_str();
        if kind.starts_with("text/") { format!("{kind}; charset=utf-8") } else { kind.to_owned() }
    }
}

/// Finds what a path leads to. Fails if that cannot be said at this time. It blocks.
pub(super) fn find(folder: &Path, path: &str) -> io::Result<Found> {
    let Some(names) = names(path) else { return Ok(Found::Nothing("the path has a name that is not served".into())) };
    let root = Dir::open_ambient_dir(folder, ambient_authority())?;
    match find_names(&root, &names, path) {
        Err(error) if is_absence(&error) => Ok(Found::Nothing(error.to_string())),
        found => found,
    }
}

fn find_names(root: &Dir, names: &[String], path: &str) -> io::Result<Found> {
    let has_slash = path.ends_with('/');
    let real = if names.is_empty() { PathBuf::from(".") } else { served(root, &names.iter().collect::<PathBuf>())? };
    let metadata = root.metadata(&real)?;
    if metadata.is_file() && !has_slash {
        return open(root, &real, names.last().map(String::as_str).unwrap_or_default()).map(Found::File);
    }
    if !metadata.is_dir() {
        return Ok(Found::Nothing("it is no file".to_owned()));
    }
    if !has_slash {
        return Ok(Found::Folder);
    }
    let index = real.join(INDEX);
    match root.symlink_metadata(&index) {
        Err(error) if error.kind() == ErrorKind::NotFound => listing::page(root, &real, names).map(Found::Listing),
        // One that cannot be served was meant to hide the listing all the same.
        _ => open(root, &served(root, &index)?, INDEX).map(Found::File),
    }
}

/// The path without symbolic links. Fails if it leads out of the folder, or to a name that is not served.
pub(super) fn served(root: &Dir, path: &Path) -> io::Result<PathBuf> {
    let real = root.canonicalize(path)?;
    let is_served = |part: Component<'_>| match part {
        Component::CurDir => true,
        Component::Normal(name) => !name.as_encoded_bytes().starts_with(b"."),
        _ => false,
    };
    if real.components().all(is_served) { Ok(real) } else { Err(absent("it leads to a name that is not served")) }
}

fn open(root: &Dir, real: &Path, name: &str) -> io::Result<OpenFile> {
    let file = open_real(root, real)?;
    // Only what is open can be judged: another file may have its name by now.
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(absent("it is no file"));
    }
    Ok(OpenFile { file, metadata, name: name.into() })
}

/// Opens a path without symbolic links. A link that has taken the place of one of its names is not followed, and a named pipe
/// does not wait for its writer.
#[cfg(unix)]
fn open_real(root: &Dir, real: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, openat};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    // A single name cannot lead out of its folder.
    let mut names = real.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    let last = names.next_back().ok_or_else(|| absent("it is no file"))?;
    let mut folder = None;
    for name in names {
        folder = Some(match &folder {
            None => openat(root, name, flags | OFlags::DIRECTORY, Mode::empty())?,
            Some(folder) => openat(folder, name, flags | OFlags::DIRECTORY, Mode::empty())?,
        });
    }
    Ok(match &folder {
        None => openat(root, last, flags, Mode::empty())?,
        Some(folder) => openat(folder, last, flags, Mode::empty())?,
    }
    .into())
}

#[cfg(not(unix))]
fn open_real(root: &Dir, real: &Path) -> io::Result<File> {
    root.open(real).map(cap_std::fs::File::into_std)
}

/// The names on a request's path, decoded. `None` if one of them is never served.
fn names(path: &str) -> Option<Vec<String>> {
    let inner = path.strip_prefix('/')?;
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    // "//" has an empty name, so that no redirect can begin with two slashes and lead to another host.
    if inner.is_empty() {
        return (path.len() == 1).then(Vec::new);
    }
    inner
        .split('/')
        .map(|name| percent_decode_str(name).decode_utf8().ok().filter(|name| is_name(name)).map(Into::into))
        .collect()
}

/// Whether a name may be served. It is then one component of a path on every system.
pub(super) fn is_name(name: &str) -> bool {
    let is_windows_stream = cfg!(windows) && name.contains(':');
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']) && !is_windows_stream
}

fn absent(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::NotFound, why)
}

/// Whether a visitor gets 404: the file is not there, or not for visitors. cap-std denies a path that leads out.
pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::PermissionDenied
            | ErrorKind::InvalidFilename
            | ErrorKind::InvalidInput
    ) || (cfg!(unix) && error.raw_os_error() == Some(ELOOP))
}

/// Too many symbolic links. `ErrorKind` has no stable name for it; this is its number on Linux, and on macOS and the BSDs.
const ELOOP: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 40 } else { 62 };

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn what_takes_the_place_of_a_file_is_judged_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(path("sub/.git")).unwrap();
        for name in ["a", ".env", "sub/b", "sub/.git/b"] {
            std::fs::write(path(name), name).unwrap();
        }
        let root = Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
        let opens = |name: &str| open(&root, Path::new(name), name).map(drop).map_err(|error| is_absence(&error));
        assert_eq!((opens("a"), opens("./a"), opens("sub/b"), opens("sub")), (Ok(()), Ok(()), Ok(()), Err(true)));
        // As if each had been swapped after its path was resolved.
        std::fs::remove_file(path("a")).unwrap();
        std::os::unix::fs::symlink(".env", path("a")).unwrap();
        assert_eq!(opens("a"), Err(true));
        std::fs::remove_file(path("a")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path("a"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(opens("a"), Err(true));
        std::fs::rename(path("sub"), path("was")).unwrap();
        std::os::unix::fs::symlink("was/.git", path("sub")).unwrap();
        assert_eq!(opens("sub/b"), Err(true));
    }

    #[test]
    fn names_are_decoded_once_and_are_single_components() {
        let found = |path: &str| names(path).map(|names| names.join("|"));
        for (path, expected) in [
            ("/", Some("")),
            ("/a", Some("a")),
            ("/a/", Some("a")),
            ("/a%20b/%C3%BC", Some("a b|ü")),
            ("/100%25", Some("100%")),
            ("/%252e%252e/x", Some("%2e%2e|x")),
            ("/a:b", Some("a:b")),
            ("", None),
            ("*", None),
            ("//", None),
            ("//a", None),
            ("/a//b", None),
            ("/a//", None),
            ("/..", None),
            ("/a/../b", None),
            ("/%2e%2e/a", None),
            ("/.%2e/a", None),
            ("/a%2f..%2fb", None),
            ("/a%5c..", None),
            ("/\\a", None),
            ("/a%00", None),
            ("/.git/config", None),
            ("/%2egit", None),
            ("/%ff", None),
        ] {
            assert_eq!(found(path).as_deref(), expected, "{path}");
        }
    }
}
