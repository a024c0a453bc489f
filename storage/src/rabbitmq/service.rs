//! The supervisor: connects, runs the parts, and begins anew after any failure, with growing pauses.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hub_core::port::DeliveryQueue;
use lapin::Connection;
use tokio_util::sync::CancellationToken;

use super::broker::{Mail, Shared};
use super::connection;
use super::consumers::Consumers;
use super::error::{Error, chain};
use super::publisher::Publisher;
use super::rows::Rows;
use super::sweeper::Sweeper;
use super::topology::Declarer;

/// The pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that lasted so long was a good one: the next failure counts as the first.
const GOOD: Duration = Duration::from_secs(10);
/// How long a stopping node waits for its last messages to be published.
const LAST: Duration = Duration::from_secs(2);

/// Runs the broker's side.
pub struct Service {
    shared: Arc<Shared>,
    store: Arc<dyn DeliveryQueue>,
    publisher: Publisher,
    consumers: Consumers,
    sweeper: Sweeper,
}

/// Two connections: one that publishes, which a broker short of memory blocks as a whole, and one that does not.
struct Pair {
    publishing: Connection,
    consuming: Arc<Connection>,
}

impl Service {
    pub(super) fn new(
        shared: Arc<Shared>,
        mail: Mail,
        rows: Arc<dyn Rows>,
        store: Arc<dyn DeliveryQueue>,
    ) -> Self {
        let Mail { letters, burials, acks } = mail;
        let publisher = Publisher {
            shared: Arc::clone(&shared),
            rows: Arc::clone(&rows),
            letters,
            burials,
            again: VecDeque::new(),
        };
        let consumers = Consumers { shared: Arc::clone(&shared), rows: Arc::clone(&rows), acks };
        let sweeper = Sweeper { shared: Arc::clone(&shared), rows };
        Self { shared, store, publisher, consumers, sweeper }
    }

    /// Runs until `stop`. From `drain` on, nothing is consumed and nothing is taken from the store any more: what this node
    /// received and did not claim goes to the others at once. What is accepted meanwhile is still published.
    pub async fn run(mut self, drain: CancellationToken, stop: CancellationToken) {
        let (shared, store) = (Arc::clone(&self.shared), Arc::clone(&self.store));
        let signals = async {
            loop {
                let signal = store.next().await;
                shared.signals.pass_on(signal);
            }
        };
        tokio::select! {
            () = signals => {}
            () = self.supervise(&drain, &stop) => {}
        }
    }

    async fn supervise(&mut self, drain: &CancellationToken, stop: &CancellationToken) {
        let shared = Arc::clone(&self.shared);
        let mut pause = FIRST_PAUSE;
        while !stop.is_cancelled() {
            let begun = shared.now();
            let ended = self.session(drain, stop).await;
            shared.gate.forget_depths();
            shared.metrics.disconnected();
            let Err(error) = ended else { return };
            if shared.now().saturating_duration_since(begun) >= GOOD {
                pause = FIRST_PAUSE;
            }
            if pause == FIRST_PAUSE {
                tracing::warn!(error = %chain(&error), "no connection to RabbitMQ; messages are still accepted");
            } else {
                tracing::debug!(error = %chain(&error), "no connection to RabbitMQ");
            }
            tokio::select! {
                () = tokio::time::sleep(shared.jittered(pause)) => {}
                () = stop.cancelled() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One life of the connections. Ends with an error when one fails, and without when the node stops.
    async fn session(&mut self, drain: &CancellationToken, stop: &CancellationToken) -> Result<(), Error> {
        let opened = tokio::select! {
            opened = Pair::open(&self.shared) => opened,
            () = stop.cancelled() => return Ok(()),
        };
        let pair = opened?;
        let Self { shared, publisher, consumers, sweeper, .. } = self;
        let mut flight = publisher.begin(&pair.publishing).await?;
        shared.metrics.connected.set(1);
        shared.metrics.sessions.inc();
        tracing::info!("connected to RabbitMQ");
        let ended = {
            let mut declarer = Declarer::new(Arc::clone(&pair.consuming));
            let mut publishing = pin!(publisher.run(&pair.publishing, &mut declarer, &mut flight, stop));
            let ended = tokio::select! {
                ended = &mut publishing => Some(ended),
                error = take_in(consumers, sweeper, &pair.consuming, drain) => Some(Err(error)),
                () = stop.cancelled() => None,
            };
            match ended {
                Some(ended) => ended,
                None => tokio::time::timeout(LAST, publishing).await.unwrap_or(Ok(())),
            }
        };
        tokio::join!(connection::close(&pair.publishing), connection::close(&pair.consuming));
        publisher.collect(flight).await;
        ended
    }
}

/// Consumes and sweeps until `drain`, and then lasts for ever.
async fn take_in(
    consumers: &mut Consumers,
    sweeper: &mut Sweeper,
    connection: &Arc<Connection>,
    drain: &CancellationToken,
) -> Error {
    let (mut for_consumers, mut for_sweeper) =
        (Declarer::new(Arc::clone(connection)), Declarer::new(Arc::clone(connection)));
    tokio::select! {
        error = consumers.run(connection, &mut for_consumers) => error,
        error = sweeper.run(&mut for_sweeper) => error,
        // The consumers' channel closes: the broker gives what was not acknowledged to the other nodes.
        () = drain.cancelled() => std::future::pending().await,
    }
}

impl Pair {
    async fn open(shared: &Shared) -> Result<Self, Error> {
        let (options, node) = (&shared.options, shared.ports.node);
        let publishing = connection::open(options, format!("message-hub node {node}, publishing")).await?;
        match connection::open(options, format!("message-hub node {node}, consuming")).await {
            Ok(consuming) => Ok(Self { publishing, consuming: Arc::new(consuming) }),
            Err(error) => {
                connection::close(&publishing).await;
                Err(error)
            }
        }
    }
}
