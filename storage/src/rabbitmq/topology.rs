//! The queues: what they are declared as, and their declaration.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hub_core::id::ServiceName;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};

use super::broker::Shared;
use super::connection::{CALL, channel};
use super::error::{Error, chain};
use super::name::Kind;
use super::options::Options;

/// A queue that cannot be used is tried again after so long.
const AGAIN: Duration = Duration::from_secs(30);

/// What a queue held when it was declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Ready to be consumed.
    pub messages: u32,
    /// Who consumes it.
    pub consumers: u32,
}

/// The arguments of a queue. Both kinds are replicated and bounded. A full one for work refuses, so that the store keeps what
/// does not fit; one for dead letters drops the oldest, which the store has anyway.
fn arguments(options: &Options, kind: Kind) -> FieldTable {
    let (length, overflow) = match kind {
        Kind::Work => (options.window, "reject-publish"),
        Kind::Dead => (options.dead_letters_shown, "drop-head"),
    };
    let text = |value: &str| AMQPValue::LongString(value.into());
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(i64::from(length)));
    arguments.insert("x-overflow".into(), text(overflow));
    arguments
}

/// Declares queues over one connection. Declaring one that exists says what it holds.
pub(super) struct Declarer {
    connection: Arc<Connection>,
    channel: Option<Channel>,
    declared: HashSet<(Kind, ServiceName)>,
    /// Those that cannot be declared until somebody changes something, and when that was found.
    unusable: HashMap<(Kind, ServiceName), (Instant, Error)>,
}

impl Declarer {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, channel: None, declared: HashSet::new(), unusable: HashMap::new() }
    }

    /// Makes the queue if it is not there; what it holds.
    ///
    /// # Errors
    /// [`Error::Arguments`] if it is there with other arguments.
    pub(super) async fn declare(
        &mut self,
        options: &Options,
        kind: Kind,
        service: &ServiceName,
    ) -> Result<Depth, Error> {
        let declare = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let depth = self.call(options, kind, service, "declare", declare).await?;
        self.declared.insert((kind, service.clone()));
        Ok(depth)
    }

    /// What the queue holds; `None` if it is not there.
    pub(super) async fn look(
        &mut self,
        options: &Options,
        kind: Kind,
        service: &ServiceName,
    ) -> Result<Option<Depth>, Error> {
        let passive = QueueDeclareOptions { passive: true, durable: true, ..QueueDeclareOptions::default() };
        match self.call(options, kind, service, "look at", passive).await {
            Ok(depth) => Ok(Some(depth)),
            Err(error) if error.is_missing_queue() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn call(
        &mut self,
        options: &Options,
        kind: Kind,
        service: &ServiceName,
        during: &'static str,
        how: QueueDeclareOptions,
    ) -> Result<Depth, Error> {
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => channel(&self.connection).await?,
        };
        let queue = options.prefix.queue(kind, service);
        let call = channel.queue_declare(queue.as_str().into(), how, arguments(options, kind));
        match tokio::time::timeout(CALL, call).await {
            Ok(Ok(found)) => {
                // An error would have closed the channel; so it is kept only now.
                self.channel = Some(channel);
                Ok(Depth { messages: found.message_count(), consumers: found.consumer_count() })
            }
            Ok(Err(source)) => Err(Error::with_queue(during, &queue, source)),
            Err(_) => Err(Error::Timeout(during)),
        }
    }

    /// Declares the queue unless this was done over this connection already. One that cannot be used is said, and is tried
    /// again only after a while.
    pub(super) async fn ensure(
        &mut self,
        shared: &Shared,
        kind: Kind,
        service: &ServiceName,
    ) -> Result<(), Error> {
        let key = (kind, service.clone());
        if self.declared.contains(&key) {
            return Ok(());
        }
        let now = shared.now();
        if let Some((since, error)) = self.unusable.get(&key)
            && now.saturating_duration_since(*since) < AGAIN
        {
            return Err(error.clone());
        }
        match self.declare(&shared.options, kind, service).await {
            Ok(_) => {
                self.unusable.remove(&key);
                Ok(())
            }
            Err(error) => {
                if error.is_lasting() {
                    tracing::error!(%service, error = %chain(&error), "a queue cannot be used; its messages wait");
                    self.unusable.insert(key, (now, error.clone()));
                }
                Err(error)
            }
        }
    }

    /// The queue turned out to be gone.
    pub(super) fn forget(&mut self, kind: Kind, service: &ServiceName) {
        self.declared.remove(&(kind, service.clone()));
    }
}
