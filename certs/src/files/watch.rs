//! Notices that files were replaced, by looking at them now and then.
//!
//! Looking finds every way of replacing a file: writing into it, renaming another one over it, and changing a link on
//! the path to it, which is how certbot and Kubernetes do it and which a watch on the file itself would miss.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// What tells one state of a file from another: its device and number, its length and its last change in nanoseconds,
/// which counts changes of its rights as well. Nothing if it cannot be looked at.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// A watch over files that belong together.
#[derive(Debug)]
pub struct Watch {
    files: Vec<PathBuf>,
    taken: Vec<Stamp>,
    last: Vec<Stamp>,
}

impl Watch {
    /// Begins with the files as they are now: to be made before they are read, so that no change falls between.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let taken = stamps(&files);
        Self { files, last: taken.clone(), taken }
    }

    /// Whether the files have changed since they were last taken, and have been left alone since the last look: somebody
    /// who writes one after the other is given the time in between. Each state is reported once.
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
    fn every_way_of_replacing_a_file_is_noticed_once_it_is_done() {
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
            assert!(!watch.changed(), "it may be half done");
            assert!(watch.changed());
            assert!(!watch.changed() && !watch.changed(), "once");
        }
    }
}
