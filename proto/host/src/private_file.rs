//! Files that only their owner may read, written whole or not at all, and the folders that hold them.
//!
//! A write goes to a temporary file in the same folder, is synced, and takes the place of the old file by a rename. So a
//! killed process or a full disk leaves the old content. It locks nothing: of two writers at once, the last one wins.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::Path;

use tempfile::{NamedTempFile, TempDir};

use crate::modes;

/// For a file: read and write for the owner alone.
const FILE_MODE: u32 = 0o600;
/// For a folder: everything for the owner alone.
const FOLDER_MODE: u32 = 0o700;
/// How the name of every temporary file and folder begins. [`sweep`] finds by it what a killed process has left.
const TEMPORARY: &str = ".tmp";

/// Replaces a file. Creates its folder if that is missing.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    write_with_mode(path, content, FILE_MODE)
}

/// Replaces a file, which others may then use as `mode` says. Creates its folder, for the owner alone, if that is missing.
pub fn write_with_mode(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = parent(path);
    create_folder(folder)?;
    written(folder, content, mode)?.persist(path)?;
    sync_folder(folder)
}

/// Replaces the content of a file. One that is there keeps its owner, its permissions and a symbolic link to it; a new one is for
/// its owner alone. Fails if the process may not give files to the owner.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let real = match fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return write(path, content),
        real => real?,
    };
    let file = written(parent(&real), content, FILE_MODE)?;
    let before = fs::metadata(&real)?;
    // First the owner: a change of it takes permissions away.
    modes::give(file.as_file(), &before)?;
    file.as_file().set_permissions(before.permissions())?;
    file.persist(&real)?;
    sync_folder(parent(&real))
}

/// Writes a file unless one is there. Says whether it has written. Of several processes at once, exactly one writes.
pub fn create(path: &Path, content: &[u8]) -> io::Result<bool> {
    let folder = parent(path);
    create_folder(folder)?;
    match written(folder, content, FILE_MODE)?.persist_noclobber(path) {
        Ok(_) => sync_folder(folder).map(|()| true),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.error),
    }
}

/// Whether all users of this machine may read a file. A file that is not there is readable by none.
pub fn is_readable_by_all(path: &Path) -> bool {
    modes::is_readable_by_all(path).unwrap_or(false)
}

/// Reads a file of at most `longest` bytes. A longer one is an error of the kind `FileTooLarge`.
pub fn read(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(longest.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > longest {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it is longer than {longest} bytes")));
    }
    Ok(content)
}

/// Creates a folder and its missing parents for the owner alone. A folder that is there keeps its mode.
pub fn create_folder(path: &Path) -> io::Result<()> {
    modes::create_folder(path, FOLDER_MODE)
}

/// Creates a folder as [`create_folder`] does, and takes from others what they may do with it if it was there.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    create_folder(path)?;
    modes::restrict(path, FOLDER_MODE)
}

/// Takes from others what they may do with a file beyond reading and writing for its owner.
pub fn restrict_file(path: &Path) -> io::Result<()> {
    modes::restrict(path, FILE_MODE)
}

/// A temporary folder in `parent` for the owner alone. It is removed when dropped, unless it was renamed and kept.
pub fn temporary_folder(parent: &Path) -> io::Result<TempDir> {
    modes::of_temporary_folder(tempfile::Builder::new().prefix(TEMPORARY), FOLDER_MODE).tempdir_in(parent)
}

/// A file in `folder` without a name, which the system removes when its last handle is closed. Other users cannot open it.
pub fn unnamed(folder: &Path) -> io::Result<File> {
    create_folder(folder)?;
    tempfile::tempfile_in(folder)
}

/// Writes this content to a temporary file and removes it again: shows that there is room, and the right to write.
pub fn probe(folder: &Path, content: &[u8]) -> io::Result<()> {
    written(folder, content, FILE_MODE).map(drop)
}

/// Removes the temporary files and folders that killed processes have left in a folder. `failed` gets each that stays.
///
/// No other process may write there at the same time: it would lose its temporary file.
pub fn sweep(folder: &Path, mut failed: impl FnMut(&Path, io::Error)) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
            && let Err(error) = remove(&entry.path())
        {
            failed(&entry.path(), error);
        }
    }
    Ok(())
}

/// Removes a file, or a folder with everything in it.
pub fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Makes new, renamed and removed names in a folder last through a crash of the machine.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    modes::sync_folder(folder)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A synced temporary file with this content and mode.
fn written(folder: &Path, content: &[u8], mode: u32) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder)?;
    file.write_all(content)?;
    // Set explicitly, so that the process's umask does not count.
    modes::set(file.as_file(), mode)?;
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use std::path::PathBuf;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn names(folder: &Path) -> Vec<PathBuf> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_and_private_with_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file");
        for content in ["one", "two"] {
            write(&path, content.as_bytes()).unwrap();
            assert_eq!(read(&path, 3).unwrap(), content.as_bytes());
        }
        assert_eq!(
            (mode(&folder.path().join("a")), mode(&folder.path().join("a/b")), mode(&path)),
            (0o700, 0o700, 0o600)
        );
        assert_eq!(names(&folder.path().join("a/b")), [Path::new("file")], "no temporary file is left");
        write_with_mode(&path, b"three", 0o644).unwrap();
        assert_eq!(mode(&path), 0o644);
        write(&path, b"four").unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(read(&path, 3).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(read(&path.join("none"), 3).unwrap_err().kind(), ErrorKind::NotADirectory);
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_its_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        std::os::unix::fs::symlink("file", &link).unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        replace(&link, b"newer").unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), mode(&path)), (&b"newer"[..], 0o640));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(folder.path()).len(), 2, "no temporary file is left");
    }

    #[test]
    fn a_replaced_file_keeps_its_owner() {
        use std::os::unix::fs::{MetadataExt as _, chown};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();
        // Only root may give files away.
        if chown(&path, Some(1234), Some(4321)).is_ok() {
            fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
            replace(&path, b"new").unwrap();
            let now = fs::metadata(&path).unwrap();
            assert_eq!((now.uid(), now.gid(), mode(&path)), (1234, 4321, 0o640));
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_content_and_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        // A folder in the file's place refuses the rename, also for root.
        let path = folder.path().join("taken");
        fs::create_dir_all(path.join("inner")).unwrap();
        assert!(write(&path, b"x").is_err());
        assert_eq!(names(folder.path()), [Path::new("taken")]);
        assert!(path.join("inner").is_dir());
    }

    #[test]
    fn of_many_that_create_one_file_one_writes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/instance");
        let wrote = std::thread::scope(|scope| {
            let path = &path;
            let starts: Vec<_> = (0..8)
                .map(|number| {
                    scope.spawn(move || create(path, format!("{number}").as_bytes()).unwrap().then_some(number))
                })
                .collect();
            starts.into_iter().filter_map(|start| start.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(wrote.len(), 1);
        assert_eq!(read(&path, 8).unwrap(), wrote[0].to_string().as_bytes());
        assert_eq!((names(path.parent().unwrap()).len(), mode(&path)), (1, 0o600));
    }

    #[test]
    fn modes_that_are_too_wide_are_narrowed_and_narrow_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        set(&file, 0o644);
        restrict_file(&file).unwrap();
        assert_eq!(mode(&file), 0o600);
        set(&file, 0o400);
        restrict_file(&file).unwrap();
        assert_eq!(mode(&file), 0o400);
        set(folder.path(), 0o755);
        create_folder(folder.path()).unwrap();
        assert_eq!(mode(folder.path()), 0o755);
        create_private_folder(folder.path()).unwrap();
        assert_eq!(mode(folder.path()), 0o700);
    }

    #[test]
    fn a_sweep_removes_what_killed_processes_left_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join(".tmpabc/inner")).unwrap();
        fs::write(folder.path().join(".tmpdef"), "").unwrap();
        for stays in ["file", ".asked", "x.tmp"] {
            fs::write(folder.path().join(stays), "").unwrap();
        }
        // What the writers here make has such a name.
        let left = temporary_folder(folder.path()).unwrap().keep();
        assert_eq!(mode(&left), 0o700);
        let (_, unfinished) = written(folder.path(), b"x", FILE_MODE).unwrap().keep().unwrap();
        assert!(left.exists() && unfinished.exists());
        sweep(folder.path(), |path, error| panic!("{}: {error}", path.display())).unwrap();
        assert_eq!(names(folder.path()), [".asked", "file", "x.tmp"].map(PathBuf::from));
    }

    #[test]
    fn a_probe_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        probe(folder.path(), &[0; 1000]).unwrap();
        assert!(names(folder.path()).is_empty());
        assert!(probe(&folder.path().join("none"), &[]).is_err());
    }
}
