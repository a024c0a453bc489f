//! Settings of the store, and making it.

use std::sync::Arc;
use std::time::Duration;

use hub_core::id::NodeId;
use hub_core::port::{Clock, IdSource, Slots};
use secrecy::SecretString;

use super::Service;
use super::accept::Queue;
use super::backlog::{Depths, Parts};
use super::claim::Looks;
use super::link::Link;
use super::outbox_port::Outbox;
use super::setup::{self, SetupError};
use super::signals::Signals;
use super::store::{Inner, Store};
use super::sweep::LastDrop;

/// Settings of the store.
#[derive(Clone, Debug)]
pub struct Options {
    /// `postgres://user:password@host:port/database?sslmode=…`
    pub url: SecretString,
    /// Most connections of this node, at least 4; default 16. A quarter of them serves reads.
    pub connections: u32,
    /// Flushes under way at the same time, 1 to 8; default 4.
    pub flushers: u32,
    /// Most open messages of one target; more are refused. Default 100,000.
    pub max_backlog: u64,
    /// How long a sender is told to wait when a backlog is full; default 5 s.
    pub backlog_retry_after: Duration,
}

/// What the store needs of others.
pub struct Ports {
    /// This node: the owner of its claims.
    pub node: NodeId,
    /// Time of this node. What is compared with due times, leases and ends is the database's own.
    pub clock: Arc<dyn Clock>,
    /// Request ids and jitter.
    pub ids: Arc<dyn IdSource>,
    /// Which messages may start at once.
    pub slots: Arc<dyn Slots>,
    /// The publisher, where a broker carries the messages: then no message is inserted claimed.
    pub outbox: Option<Arc<dyn Outbox>>,
}

impl Options {
    /// The defaults, for this database.
    #[must_use]
    pub const fn new(url: SecretString) -> Self {
        Self {
            url,
            connections: 16,
            flushers: 4,
            max_backlog: 100_000,
            backlog_retry_after: Duration::from_secs(5),
        }
    }

    /// The store, and the service that has to run for it. Nothing is connected yet.
    ///
    /// # Errors
    /// [`SetupError::Url`].
    pub fn build(self, ports: Ports) -> Result<(Service, Store), SetupError> {
        let options = setup::parse(&self.url)?;
        let connections = self.connections.max(4);
        let reads = (connections / 4).max(1);
        // A place of its own for the counters of this process.
        let first = i64::try_from(ports.ids.below(1 << 40)).unwrap_or(0);
        let first = (first << 22) + i64::try_from(ports.node.0 % 1_021).unwrap_or(0) * 4_096 + 1;
        let inner = Arc::new(Inner {
            work: Link::new(options.clone(), connections - reads, Arc::clone(&ports.clock)),
            reads: Link::new(options, reads, Arc::clone(&ports.clock)),
            queue: Queue::default(),
            signals: Signals::default(),
            parts: Parts::new(first),
            depths: Depths::default(),
            looks: Looks::default(),
            last_drop: LastDrop::default(),
            options: self,
            ports,
        });
        Ok((Service::new(Arc::clone(&inner)), Store::new(inner)))
    }
}
