//! What every part of a node works with.

use std::sync::Arc;
use std::time::Instant;

use hub_core::error::code;
use hub_core::port::{Clock, IdSource};
use prometheus::Registry;
use tracing::warn;

use crate::clock::HubClock;
use crate::coded::CodedError;
use crate::config::Config;
use crate::ids::Ids;
use crate::lifecycle::{Stage, Tasks};
use crate::telemetry;

/// Settings, clocks, chance, metrics and tasks. Cheap to clone.
#[derive(Clone)]
pub struct Base {
    /// The settings.
    pub config: Arc<Config>,
    /// Where metrics are registered.
    pub registry: Registry,
    /// The clocks.
    pub clock: Arc<HubClock>,
    /// Ids and chance.
    pub ids: Arc<dyn IdSource>,
    /// The tasks.
    pub tasks: Tasks,
}

impl Base {
    /// With the clocks of this machine, or a test's.
    ///
    /// # Errors
    /// The metrics cannot be registered.
    pub fn new(config: Config, clock: HubClock) -> Result<Self, CodedError> {
        let registry = Registry::new();
        telemetry::register(&registry).map_err(metrics)?;
        let clock = Arc::new(clock);
        let tasks = Tasks::new(Arc::clone(&clock) as Arc<dyn Clock>, &registry).map_err(metrics)?;
        Ok(Self { config: Arc::new(config), registry, clock, ids: Arc::new(Ids::new()), tasks })
    }

    /// The clocks as a port.
    #[must_use]
    pub fn time(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    /// 128 random bits.
    #[must_use]
    pub fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        self.ids.secret(&mut bytes);
        u128::from_be_bytes(bytes)
    }

    /// Ends a stage; says which of its tasks did not end in time.
    pub async fn stop(&self, stage: Stage, deadline: Instant) {
        if let Err(running) = self.tasks.stop(stage, deadline).await {
            warn!(?stage, ?running, "tasks did not end in time");
        }
    }
}

/// Metrics that are registered twice are a fault of ours.
pub fn metrics(error: prometheus::Error) -> CodedError {
    CodedError::new(code::INTERNAL, "metrics cannot be registered").because(error)
}
