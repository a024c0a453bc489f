//! Settings of delivery, and how its parts are made.

use std::sync::Arc;

use hub_core::port::Clock;
use serde::{Deserialize, Serialize};

use super::dispatcher::{Dispatcher, Ports};
use super::metrics::Metrics;
use super::shared::{Handle, Registry};

/// Settings of delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Attempts under way at a time on this node; no target gets more than a quarter. Default 1,024.
    pub slots: u32,
    /// Retries after the first attempt where neither the message nor the service says; default 12.
    pub max_retries: u8,
    /// Ends of attempts written in one step at most; default 500.
    pub settle_batch: usize,
    /// Such steps under way at a time; default 4.
    pub settles_in_flight: usize,
    /// Targets that have their own label in metrics; the others share `other`. Default 100.
    pub labelled_targets: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { slots: 1_024, max_retries: 12, settle_batch: 500, settles_in_flight: 4, labelled_targets: 100 }
    }
}

/// Delivery could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A metric of the same name exists.
    #[error("metrics could not be registered")]
    Metrics(#[from] prometheus::Error),
}

impl Options {
    /// Makes the handle, which the store needs before there is a queue to dispatch from. It grants no slot until the
    /// dispatcher runs and its queue has started.
    #[must_use]
    pub fn handle(&self, registry: Registry, clock: Arc<dyn Clock>) -> Handle {
        Handle::new(self.slots, registry, clock)
    }

    /// Makes the dispatcher.
    ///
    /// # Errors
    /// If its metrics are registered already.
    pub fn build(self, handle: &Handle, ports: Ports) -> Result<Dispatcher, BuildError> {
        let metrics = Metrics::register(&ports.metrics, self.labelled_targets)?;
        Ok(Dispatcher::new(self, handle.shared(), ports, metrics))
    }
}
