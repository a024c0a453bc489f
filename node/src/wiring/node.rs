//! A node: everything between its start and its end.

use hub_core::port::Clock;
use tracing::info;

use super::address::{self, Bound};
use super::base::Base;
use crate::clock::HubClock;
use crate::coded::CodedError;
use crate::config::Config;
use crate::identity::{DataFolder, Endpoints, Identity};
use crate::lifecycle::{Failure, Stage, Tasks};

/// A running node.
pub struct Node {
    base: Base,
    folder: DataFolder,
    endpoints: Endpoints,
}

impl Node {
    /// Starts a node and waits until it answers.
    ///
    /// # Errors
    /// Why it cannot start, with its code.
    pub async fn start(config: Config, rejoin: bool) -> Result<Self, CodedError> {
        let base = Base::new(config, HubClock::default())?;
        let path = base.config.node.data.clone();
        if rejoin && let Some(aside) = DataFolder::set_aside(&path, base.clock.wall())? {
            info!(folder = %aside.display(), "the old data was set aside");
        }
        let mut folder = DataFolder::open(&path)?;
        let bound = address::bind(&base.config).await?;
        let identity = match folder.identity() {
            Some(identity) => identity.clone(),
            None => {
                let fresh = Identity::founder(base.random(), base.random());
                folder.save(fresh.clone())?;
                fresh
            }
        };
        let endpoints = endpoints(&identity, &bound);
        folder.announce(&endpoints)?;
        Ok(Self { base, folder, endpoints })
    }

    /// Where it is reached.
    #[must_use]
    pub const fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Its tasks.
    #[must_use]
    pub fn tasks(&self) -> Tasks {
        self.base.tasks.clone()
    }

    /// Waits until something failed that the node cannot go on without.
    pub async fn failed(&self) -> Failure {
        self.base.tasks.failed().await
    }

    /// Stops in order, within the drain limit.
    pub async fn stop(self, _orderly: bool) {
        let deadline = self.base.clock.instant() + self.base.config.node.drain_limit;
        for stage in Stage::ALL {
            self.base.stop(stage, deadline).await;
        }
        self.folder.withdraw();
    }
}

fn endpoints(identity: &Identity, bound: &Bound) -> Endpoints {
    Endpoints {
        pid: std::process::id(),
        node_id: identity.node.unwrap_or_default(),
        rest_url: bound.rest_url.clone(),
        raft_addr: bound.raft_addr.clone(),
    }
}
