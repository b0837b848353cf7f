//! The values that were published and not yet taken away again, kept on disk: whoever cuts an order short, the next one
//! cleans up.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;

use crate::dns::{BoxFuture, Solver, SolverError};
use crate::store::Store;

const FILE: &str = "published.json";

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
        for value in left {
            if let Err(error) = self.cleanup(&value).await {
                warn!(%error, "a TXT record of an order that was cut short could not be taken away");
            }
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
            self.note(|values| values.push(value.to_owned())).await;
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
