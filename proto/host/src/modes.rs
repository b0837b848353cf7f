//! Modes of files and folders, in the one place that knows the system.
//!
//! Windows has no modes: what a user makes in their own profile is theirs by the rules that it inherits.

pub(crate) use self::system::{
    create_folder, give, is_readable_by_all, of_temporary_folder, restrict, set, sync_folder,
};

#[cfg(unix)]
mod system {
    use std::fs::{self, DirBuilder, File, Metadata, Permissions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, fchown};
    use std::path::Path;

    use tempfile::Builder;

    /// Creates a folder and its missing parents.
    pub(crate) fn create_folder(path: &Path, mode: u32) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(mode).create(path)
    }

    /// Sets the mode of an open file.
    pub(crate) fn set(file: &File, mode: u32) -> io::Result<()> {
        file.set_permissions(Permissions::from_mode(mode))
    }

    /// Gives a file the owner and the group of another one.
    pub(crate) fn give(file: &File, like: &Metadata) -> io::Result<()> {
        let (now, uid, gid) = (file.metadata()?, like.uid(), like.gid());
        if (now.uid(), now.gid()) == (uid, gid) {
            return Ok(());
        }
        fchown(file, Some(uid), Some(gid)).map_err(|error| {
            let why =
                format!("it belongs to user {uid} and group {gid}, and the new one cannot be given to them: {error}");
            io::Error::new(error.kind(), why)
        })
    }

    /// Takes from a mode what goes beyond this one.
    pub(crate) fn restrict(path: &Path, mode: u32) -> io::Result<()> {
        if fs::metadata(path)?.permissions().mode() & 0o777 & !mode != 0 {
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    /// Whether all users may read a file.
    pub(crate) fn is_readable_by_all(path: &Path) -> io::Result<bool> {
        Ok(fs::metadata(path)?.permissions().mode() & 0o004 != 0)
    }

    /// Has temporary folders get this mode.
    pub(crate) fn of_temporary_folder<'a, 'b, 'c>(
        builder: &'c mut Builder<'a, 'b>,
        mode: u32,
    ) -> &'c mut Builder<'a, 'b> {
        builder.permissions(Permissions::from_mode(mode))
    }

    /// Makes new names in a folder last through a crash of the machine.
    pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

#[cfg(not(unix))]
mod system {
    use std::fs::{self, File, Metadata};
    use std::io;
    use std::path::Path;

    use tempfile::Builder;

    /// No file is known to be readable by all.
    pub(crate) fn is_readable_by_all(_: &Path) -> io::Result<bool> {
        Ok(false)
    }

    /// Creates a folder and its missing parents.
    pub(crate) fn create_folder(path: &Path, _mode: u32) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    /// Without effect.
    #[expect(clippy::unnecessary_wraps, reason = "other systems can fail")]
    pub(crate) fn set(_file: &File, _mode: u32) -> io::Result<()> {
        Ok(())
    }

    /// Without effect.
    #[expect(clippy::unnecessary_wraps, reason = "other systems can fail")]
    pub(crate) fn give(_file: &File, _like: &Metadata) -> io::Result<()> {
        Ok(())
    }

    /// Fails only if there is no such file.
    pub(crate) fn restrict(path: &Path, _mode: u32) -> io::Result<()> {
        fs::metadata(path).map(drop)
    }

    /// Without effect.
    pub(crate) fn of_temporary_folder<'a, 'b, 'c>(
        builder: &'c mut Builder<'a, 'b>,
        _mode: u32,
    ) -> &'c mut Builder<'a, 'b> {
        builder
    }

    /// Fails only if there is no such folder. The system opens no folders as files, and its journal keeps their names.
    pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
        fs::metadata(folder).map(drop)
    }
}
