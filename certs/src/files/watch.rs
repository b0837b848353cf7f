//! Notices when files are replaced, by looking at them from time to time.
//!
//! This finds every way of replacing a file: writing into it, renaming another over it, or changing a link on its path.
//! Certbot and Kubernetes change links, which a watch on the file itself would miss. It starts no timer: the caller
//! decides when to look.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// Distinguishes two states of a file: device, inode, length and time of change in nanoseconds. Changes of permissions
/// count. `None` if the file cannot be examined.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// A watch on files that belong together.
#[derive(Debug)]
pub struct Watch {
    files: Vec<PathBuf>,
    taken: Vec<Stamp>,
    last: Vec<Stamp>,
}

impl Watch {
    /// Starts with the present state of the files. Create it before you read them, so that no change is missed.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let taken = stamps(&files);
        Self { files, last: taken.clone(), taken }
    }

    /// True if the files have changed and then stayed unchanged since the last look. A writer of several files thus has
    /// time to finish. Each state is reported once.
    pub fn changed(&mut self) -> bool {
        let now = stamps(&self.files);
        let quiet = now == self.last;
        self.last.clone_from(&now);
        if !quiet || now == self.taken {
            return false;
        }
        self.taken = now;
        true
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let data = fs::metadata(path).ok()?;
        Some((data.dev(), data.ino(), data.len(), data.ctime(), data.ctime_nsec()))
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn every_way_of_replacing_a_file_is_noticed_once() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b, link) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("link"));
        for path in [&a, &b] {
            fs::write(path, "1").unwrap();
        }
        symlink(&a, &link).unwrap();
        let mut watch = Watch::new(vec![link.clone(), folder.path().join("none")]);
        assert!(!watch.changed() && !watch.changed());
        let ways: [&dyn Fn(); 4] = [
            &|| fs::write(&a, "22").unwrap(),
            &|| fs::set_permissions(&a, fs::Permissions::from_mode(0o600)).unwrap(),
            &|| {
                fs::write(folder.path().join("new"), "33").unwrap();
                fs::rename(folder.path().join("new"), &a).unwrap();
            },
            &|| {
                symlink(&b, folder.path().join("other")).unwrap();
                fs::rename(folder.path().join("other"), &link).unwrap();
            },
        ];
        for change in ways {
            change();
            assert!(!watch.changed(), "the change may be half done");
            assert!(watch.changed());
            assert!(!watch.changed() && !watch.changed(), "once");
        }
    }
}
