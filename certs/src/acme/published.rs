//! The values that were published and not yet taken away again, kept on disk: whoever cuts an order short, the next one
//! cleans up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::warn;

use crate::dns::{BoxFuture, Solver, SolverError};
use crate::store::Store;

const FILE: &str = "published.json";
/// How many values are remembered at the most: those of several orders whose records could not be taken away.
const MOST_VALUES: usize = 32;
/// How long taking all of them away may take, which nothing depends on.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(120);

/// A solver that remembers.
#[derive(Debug)]
pub(super) struct Published {
    solver: Arc<dyn Solver>,
    store: Arc<Store>,
    values: Mutex<Vec<String>>,
}

impl Published {
    /// With what the last process has left.
    pub(super) fn new(solver: Arc<dyn Solver>, store: Arc<Store>) -> Self {
        let values = store.read_json(FILE).unwrap_or_else(|error| {
            warn!(%error, "cannot see which TXT records were left behind");
            None
        });
        Self { solver, store, values: Mutex::new(values.unwrap_or_default()) }
    }

    /// Takes away what was left behind.
    pub(super) async fn clean_up(&self) {
        let left = self.values.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let all = async {
            for value in left {
                if let Err(error) = self.cleanup(&value).await {
                    warn!(%error, "a TXT record could not be taken away; it is tried again with the next order");
                }
            }
        };
        if tokio::time::timeout(CLEAN_UP_TIMEOUT, all).await.is_err() {
            warn!("TXT records could not be taken away in time; it is tried again with the next order");
        }
    }

    /// A value is noted before it is published, and forgotten after it was taken away.
    async fn note(&self, change: impl FnOnce(&mut Vec<String>)) {
        let values = {
            let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut values);
            values.clone()
        };
        let written = super::on_disk(&self.store, move |store| store.write_json(FILE, &values)).await;
        if let Err(error) = written {
            warn!(%error, "cannot note which TXT records are published");
        }
    }
}

impl Solver for Published {
    fn present<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(async move {
            self.note(|values| {
                values.retain(|noted| noted != value);
                values.push(value.to_owned());
                let most = values.len().saturating_sub(MOST_VALUES);
                values.drain(..most);
            })
            .await;
            self.solver.present(value).await
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

    /// Takes nothing away while it is out of order.
    #[derive(Debug, Default)]
    struct Dns {
        out_of_order: Mutex<bool>,
        there: Mutex<Vec<String>>,
    }

    impl Solver for Dns {
        fn present<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
            self.there.lock().unwrap().push(value.to_owned());
            Box::pin(async { Ok(()) })
        }

        fn cleanup<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
            let failed = *self.out_of_order.lock().unwrap();
            if !failed {
                self.there.lock().unwrap().retain(|there| there != value);
            }
            Box::pin(async move { if failed { Err(SolverError::Unavailable("away".to_owned())) } else { Ok(()) } })
        }
    }

    #[tokio::test]
    async fn what_one_process_leaves_behind_the_next_takes_away() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path(), "https://acme.test/dir").unwrap());
        let dns = Arc::new(Dns::default());
        let published = Published::new(dns.clone(), store.clone());
        published.present("a").await.unwrap();
        published.present("b").await.unwrap();
        published.cleanup("a").await.unwrap();
        drop(published);
        *dns.out_of_order.lock().unwrap() = true;
        let published = Published::new(dns.clone(), store.clone());
        published.clean_up().await;
        assert_eq!(*dns.there.lock().unwrap(), ["b"]);
        *dns.out_of_order.lock().unwrap() = false;
        published.clean_up().await;
        assert!(dns.there.lock().unwrap().is_empty());
        assert_eq!(store.read_json::<Vec<String>>(FILE).unwrap(), Some(Vec::new()));
    }

    #[tokio::test]
    async fn what_is_remembered_has_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path(), "https://acme.test/dir").unwrap());
        let published = Published::new(Arc::new(Dns::default()), store.clone());
        for index in 0..MOST_VALUES + 5 {
            published.present(&index.to_string()).await.unwrap();
            published.present(&index.to_string()).await.unwrap();
        }
        let kept = store.read_json::<Vec<String>>(FILE).unwrap().unwrap();
        assert_eq!((kept.len(), &*kept[0]), (MOST_VALUES, "5"));
    }
}
