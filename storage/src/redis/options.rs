//! Settings of the shared cache, and what it is built from.

use std::sync::Arc;
use std::time::Duration;

use hub_core::port::{Clock, IdSource};

use super::endpoint::Endpoint;
use super::fault::Fault;
use super::link::Link;
use super::service::{Handle, Service, build};
use crate::memory::LocalCache;

/// Where the cache is and how long it is waited for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The Redis.
    pub endpoint: Endpoint,
    /// What all keys begin with; each cluster has its own.
    pub namespace: String,
    /// Part of the keys of messages: what was kept before a recovery or a restore, which the store may have lost, is not
    /// shown after it.
    pub generation: u64,
    /// How long a request waits for it, at most; default 100 ms. Then this node decides by itself for a while.
    pub timeout: Duration,
    /// The authorities (PEM) that sign its certificate, instead of the public ones.
    pub authorities: Option<Vec<u8>>,
}

/// What it works with.
pub struct Ports {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub ids: Arc<dyn IdSource>,
    /// What decides while Redis does not answer.
    pub local: LocalCache,
}

impl Options {
    /// Everything at its default.
    #[must_use]
    pub fn new(endpoint: Endpoint, namespace: String) -> Self {
        Self { endpoint, namespace, generation: 0, timeout: Duration::from_millis(100), authorities: None }
    }

    /// The running part and what is asked. Nothing is connected yet: until Redis has answered the service, this node
    /// decides by itself. Called within a runtime.
    ///
    /// # Errors
    /// The authorities cannot be read.
    pub fn build(self, ports: Ports) -> Result<(Service, Handle), Fault> {
        Ok(build(Link::new(&self)?, self, ports))
    }
}
