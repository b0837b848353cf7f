//! Remembers on disk which TXT values are published, so that the next process removes what a killed one left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::dns::{BoxFuture, Solver, SolverError};
use crate::one_line::one_line;
use crate::store::{Store, on_disk};

const FILE: &str = "published.json";
/// The most values that are remembered: those of several orders whose records could not be removed.
const MOST_VALUES: usize = 32;
/// The longest that a removal of all values may take. Nothing waits for its success.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(120);

/// A solver that remembers its published values in the store.
#[derive(Debug)]
pub(super) struct Ledger {
    solver: Arc<dyn Solver>,
    store: Arc<Store>,
    purpose: String,
    left: Mutex<Left>,
    /// A value of this attempt could not be published.
    has_failed: AtomicBool,
}

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Left {
    /// The settings under which the values were published, as in [`State::purpose`](super::state::State).
    purpose: String,
    values: Vec<String>,
}

impl Ledger {
    /// Opens the ledger with the values of the last process. New values are published under `purpose`.
    pub(super) fn new(solver: Arc<dyn Solver>, store: Arc<Store>, purpose: String) -> Self {
        let left = store.read_json(FILE).unwrap_or_else(|error| {
            warn!(%error, "cannot see which TXT records were left behind: {error}");
            None
        });
        let left = left.filter(|left: &Left| !left.values.is_empty());
        let left = left.unwrap_or_else(|| Left { purpose: purpose.clone(), values: Vec::new() });
        Self { solver, store, purpose, left: Mutex::new(left), has_failed: AtomicBool::new(false) }
    }

    /// An attempt begins.
    pub(super) fn begin(&self) {
        self.has_failed.store(false, Ordering::Relaxed);
    }

    /// Whether a value of this attempt could not be published.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Removes all values that are still published.
    ///
    /// Values that were published under other settings may be at another name or server. They get one try and are
    /// forgotten.
    pub(super) async fn clean_up(&self) {
        let Left { purpose, values: left } = self.left.lock().clone();
        let foreign = (purpose != self.purpose && !left.is_empty()).then(|| left.join(" "));
        let all = async {
            for value in left {
                if let Err(error) = self.cleanup(&value).await {
                    let error = one_line(&error.to_string());
                    warn!(
                        error,
                        "a TXT record could not be removed, which is tried again with the next order: {error}"
                    );
                }
            }
        };
        if tokio::time::timeout(CLEAN_UP_TIMEOUT, all).await.is_err() {
            warn!("TXT records could not be removed in time; it is tried again with the next order");
        }
        if let Some(values) = foreign {
            warn!(values, "TXT records of other settings may be left, and have to be removed by hand: {values}");
            self.note(Vec::clear).await;
        }
    }

    /// Changes the list and saves it: before a value is published, and after one is removed.
    async fn note(&self, change: impl FnOnce(&mut Vec<String>)) {
        let left = {
            let mut left = self.left.lock();
            change(&mut left.values);
            if left.values.is_empty() {
                left.purpose.clone_from(&self.purpose);
            }
            left.clone()
        };
        let written = on_disk(&self.store, move |store| store.write_json(FILE, &left)).await;
        if let Err(error) = written {
            warn!(%error, "cannot note which TXT records are published: {error}");
        }
    }
}

impl Solver for Ledger {
    fn present<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(async move {
            self.note(|values| {
                values.retain(|noted| noted != value);
                values.push(value.to_owned());
                let most = values.len().saturating_sub(MOST_VALUES);
                values.drain(..most);
            })
            .await;
            let presented = self.solver.present(value).await;
            self.has_failed.fetch_or(presented.is_err(), Ordering::Relaxed);
            presented
        })
    }

    fn cleanup<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(async move {
            self.solver.cleanup(value).await?;
            self.note(|values| values.retain(|noted| noted != value)).await;
            Ok(())
        })
    }

    fn settled<'a>(&'a self, values: &'a [String]) -> BoxFuture<'a, ()> {
        self.solver.settled(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Removes nothing while it is out of order.
    #[derive(Debug, Default)]
    struct Dns {
        out_of_order: Mutex<bool>,
        there: Mutex<Vec<String>>,
    }

    impl Solver for Dns {
        fn present<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
            self.there.lock().push(value.to_owned());
            Box::pin(async { Ok(()) })
        }

        fn cleanup<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
            let failed = *self.out_of_order.lock();
            if !failed {
                self.there.lock().retain(|there| there != value);
            }
            Box::pin(async move { if failed { Err(SolverError::Unavailable("away".to_owned())) } else { Ok(()) } })
        }
    }

    #[tokio::test]
    async fn the_next_process_removes_what_one_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path(), "https://acme.test/dir").unwrap());
        let dns = Arc::new(Dns::default());
        let ledger = Ledger::new(dns.clone(), store.clone(), "a".to_owned());
        ledger.present("a").await.unwrap();
        ledger.present("b").await.unwrap();
        ledger.cleanup("a").await.unwrap();
        drop(ledger);
        *dns.out_of_order.lock() = true;
        let ledger = Ledger::new(dns.clone(), store.clone(), "a".to_owned());
        ledger.clean_up().await;
        assert_eq!(*dns.there.lock(), ["b"]);
        *dns.out_of_order.lock() = false;
        ledger.clean_up().await;
        assert!(dns.there.lock().is_empty());
        let none = Left { purpose: "a".to_owned(), values: Vec::new() };
        assert_eq!(store.read_json(FILE).unwrap(), Some(none));
    }

    #[tokio::test]
    async fn values_of_other_settings_are_tried_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path(), "https://acme.test/dir").unwrap());
        let dns = Arc::new(Dns::default());
        let ledger = |purpose: &str| Ledger::new(dns.clone(), store.clone(), purpose.to_owned());
        ledger("a").present("1").await.unwrap();
        *dns.out_of_order.lock() = true;
        ledger("b").clean_up().await;
        let none = Left { purpose: "b".to_owned(), values: Vec::new() };
        assert_eq!(store.read_json(FILE).unwrap(), Some(none));
        // The same server under other settings may be able to remove them.
        ledger("b").present("2").await.unwrap();
        *dns.out_of_order.lock() = false;
        ledger("c").clean_up().await;
        assert_eq!(*dns.there.lock(), ["1"]);
    }

    #[tokio::test]
    async fn the_list_of_values_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path(), "https://acme.test/dir").unwrap());
        let ledger = Ledger::new(Arc::new(Dns::default()), store.clone(), "a".to_owned());
        for index in 0..MOST_VALUES + 5 {
            ledger.present(&index.to_string()).await.unwrap();
            ledger.present(&index.to_string()).await.unwrap();
        }
        let Left { values, .. } = store.read_json(FILE).unwrap().unwrap();
        assert_eq!((values.len(), &*values[0]), (MOST_VALUES, "5"));
    }
}
