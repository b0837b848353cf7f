//! Sets damaged files aside, so that the program goes on and a person can look at them.

use std::fs;
use std::path::Path;

use cok_host::private_file;
use tracing::{error, warn};

use super::folder::Store;
use crate::error::Error;

/// The most damaged files that are kept.
const MOST_DAMAGED: usize = 8;

impl Store {
    /// Sets a file aside that is readable but worthless.
    pub(crate) fn discard(&self, name: &str, why: &str) {
        let path = self.folder.join(name);
        self.set_aside(&path, &Error::invalid(&path, why));
    }

    /// Logs the damage and, under the lock, moves the file out of the way.
    ///
    /// It returns no error, since its caller goes on with the last good file.
    pub(super) fn set_aside(&self, path: &Path, damage: &Error) {
        error!(event = "damaged", %damage, "set aside, and the last good one is used: {damage}");
        if self.lock.lock().is_none() {
            return;
        }
        let folder = self.folder.join("damaged");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let moved = private_file::create_folder(&folder).and_then(|()| {
            let taken: Vec<_> = fs::read_dir(&folder)?.filter_map(Result::ok).collect();
            if taken.len() >= MOST_DAMAGED {
                return private_file::remove(path);
            }
            let free =
                (1..=MOST_DAMAGED).map(|number| folder.join(format!("{name}.{number}"))).find(|path| !path.exists());
            fs::rename(path, free.unwrap_or_else(|| folder.join(&*name)))
        });
        if let Err(error) = moved {
            let path = path.display();
            warn!(%path, %error, "{path} cannot be set aside: {error}");
        }
    }
}
