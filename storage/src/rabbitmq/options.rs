//! Settings of the broker's side, and how its parts are made.

use std::sync::Arc;
use std::time::Duration;

use hub_core::id::{NodeId, ServiceName};
use hub_core::port::{Clock, DeliveryQueue, IdSource};
use lapin::uri::AMQPUri;
use secrecy::{ExposeSecret, SecretString};

use super::broker::Broker;
use super::error::Error;
use super::metrics::Metrics;
use super::name::Prefix;
use super::queue::Queue;
use super::rows::Rows;
use super::service::Service;

/// Settings of the broker's side.
#[derive(Clone, Debug)]
pub struct Options {
    /// `amqp://user:password@host:5672/vhost`, or `amqps://` for TLS. Never logged.
    pub url: SecretString,
    /// The first part of the names of all queues.
    pub prefix: Prefix,
    /// Most ids of one target in the broker; the rest waits in the store. Default 2,000. The queues are declared with it, so
    /// all hubs of a broker and a prefix have the same.
    pub window: u32,
    /// Most dead letters shown in one dead-letter queue; the oldest go first. Default 10,000.
    pub dead_letters_shown: u32,
    /// Least that this node takes of a target before it has acknowledged any, 1 to 200; default 10. It takes twice what can be
    /// under way, if that is more, up to 200.
    pub least_prefetch: u16,
    /// What this node has taken and has no use for goes back after so long: its target is paused, or this node is busy.
    /// Default 15 s.
    pub patience: Duration,
}

impl Options {
    /// With the defaults.
    #[must_use]
    pub const fn new(url: SecretString, prefix: Prefix) -> Self {
        Self {
            url,
            prefix,
            window: 2_000,
            dead_letters_shown: 10_000,
            least_prefetch: 10,
            patience: Duration::from_secs(15),
        }
    }

    /// The parsed URL, with a heartbeat unless it says another.
    pub(super) fn uri(&self) -> Result<AMQPUri, Error> {
        let mut uri: AMQPUri = self.url.expose_secret().parse().map_err(Error::Url)?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        Ok(uri)
    }

    /// Makes the way to the broker, which the store needs before there is a queue. Nothing is connected yet.
    ///
    /// # Errors
    /// If the URL is not valid or a metric of the same name is registered.
    pub fn build(self, ports: Ports) -> Result<Broker, BuildError> {
        self.uri()?;
        let metrics = Metrics::register(&ports.metrics)?;
        Ok(Broker::new(self, ports, metrics))
    }
}

/// A silent peer is given up after twice this.
const HEARTBEAT_SECONDS: u16 = 10;

/// What the broker's side needs of others.
pub struct Ports {
    /// Who this node is, for the names of its connections.
    pub node: NodeId,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance, for jitter.
    pub ids: Arc<dyn IdSource>,
    /// Where metrics are registered.
    pub metrics: prometheus::Registry,
    /// The services that are registered now: each has its queues, and this node consumes them while they may be called.
    pub services: Arc<dyn Fn() -> Vec<ServiceName> + Send + Sync>,
}

/// The broker's side could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The URL is not valid.
    #[error(transparent)]
    Broker(#[from] Error),
    /// A metric of the same name exists.
    #[error("metrics could not be registered")]
    Metrics(#[from] prometheus::Error),
}

impl Broker {
    /// Makes the queue over a store that was built with this broker as its outbox, and the service that has to run for it.
    #[must_use]
    pub fn attach(self, rows: Arc<dyn Rows>, store: Arc<dyn DeliveryQueue>) -> (Service, Queue) {
        let (shared, mail) = self.into_parts();
        let queue = Queue::new(Arc::clone(&shared), Arc::clone(&rows), Arc::clone(&store));
        (Service::new(shared, mail, rows, store), queue)
    }
}
