//! Consumes the queues of the targets that the dispatcher wants messages of, and acknowledges.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered, SelectAll};
use futures::{FutureExt, StreamExt};
use hub_core::id::ServiceName;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Event};
use tokio::sync::mpsc;

use super::broker::Shared;
use super::connection::{channel, in_time};
use super::error::Error;
use super::letter::read;
use super::name::Kind;
use super::rows::Rows;
use super::shelves::{Place, Tag, Unwanted};
use super::topology::Declarer;

/// What nobody wants is looked for so often.
const LOOK: Duration = Duration::from_secs(1);
/// Acknowledgements taken in one step.
const ACKS: usize = 500;

/// Consumes, over one connection after the other.
pub(super) struct Consumers {
    pub(super) shared: Arc<Shared>,
    pub(super) rows: Arc<dyn Rows>,
    pub(super) acks: mpsc::UnboundedReceiver<Tag>,
}

/// What one consumer says; `None` is its end.
struct Arrival {
    target: ServiceName,
    consumer: u64,
    delivery: Option<lapin::Result<Delivery>>,
}

struct Active {
    consumer: u64,
    prefetch: u16,
}

/// What is under way over one connection.
struct Shift {
    epoch: u64,
    channel: Channel,
    active: HashMap<ServiceName, Active>,
    arrivals: SelectAll<BoxStream<'static, Arrival>>,
    acking: FuturesUnordered<BoxFuture<'static, lapin::Result<()>>>,
    chores: FuturesUnordered<BoxFuture<'static, ()>>,
    made: u64,
    /// Targets that are wished for and whose queues cannot be used for now.
    unusable: Vec<ServiceName>,
}

impl Consumers {
    /// Consumes until the connection fails; why it did.
    pub(super) async fn run(&mut self, connection: &Connection, declarer: &mut Declarer) -> Error {
        let channel = match channel(connection).await {
            Ok(channel) => channel,
            Err(error) => return error,
        };
        let mut shift = Shift {
            epoch: self.shared.shelves.renew(),
            channel,
            active: HashMap::new(),
            arrivals: SelectAll::new(),
            acking: FuturesUnordered::new(),
            chores: FuturesUnordered::new(),
            made: 0,
            unusable: Vec::new(),
        };
        match self.work(connection, declarer, &mut shift).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn work(
        &mut self,
        connection: &Connection,
        declarer: &mut Declarer,
        shift: &mut Shift,
    ) -> Result<std::convert::Infallible, Error> {
        let shared = Arc::clone(&self.shared);
        let mut events = pin!(connection.events_listener());
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tags = Vec::new();
        loop {
            self.follow_wishes(declarer, shift).await?;
            tokio::select! {
                Some(arrival) = shift.arrivals.next(), if !shift.arrivals.is_empty() => {
                    self.arrived(arrival, declarer, shift)?;
                }
                _ = self.acks.recv_many(&mut tags, ACKS) => {
                    for tag in tags.drain(..) {
                        shift.acknowledge(tag);
                    }
                }
                Some(result) = shift.acking.next(), if !shift.acking.is_empty() => {
                    result.map_err(Error::during("acknowledge"))?;
                    shared.metrics.acknowledged.inc();
                }
                Some(()) = shift.chores.next(), if !shift.chores.is_empty() => {}
                () = shared.shelves.wishes_changed.notified() => {}
                _ = look.tick() => self.tidy(shift),
                event = events.next() => match event {
                    // A soft error is the end of one channel. Who used it knows: a queue could not be declared.
                    Some(Event::Error(source)) if !source.is_amqp_soft_error() => {
                        return Err(Error::Broker { during: "keep the connection", source });
                    }
                    Some(_) => {}
                    None => return Err(Error::Timeout("keep the connection")),
                },
            }
        }
    }

    /// Starts, changes and ends consumers as the dispatcher wishes.
    async fn follow_wishes(&self, declarer: &mut Declarer, shift: &mut Shift) -> Result<(), Error> {
        for (target, wish) in self.shared.shelves.changed() {
            let prefetch = shift.active.get(&target).map(|active| active.prefetch);
            if prefetch == wish {
                continue;
            }
            if prefetch.is_some() {
                shift.stop(&target).await?;
            }
            let Some(prefetch) = wish else { continue };
            match declarer.ensure(&self.shared, Kind::Work, &target).await {
                Ok(()) => self.start(target, prefetch, shift).await?,
                Err(error) if error.is_lasting() => shift.unusable.push(target),
                Err(error) => return Err(error),
            }
        }
        self.shared.metrics.consumers.set(i64::try_from(shift.active.len()).unwrap_or(i64::MAX));
        Ok(())
    }

    async fn start(&self, target: ServiceName, prefetch: u16, shift: &mut Shift) -> Result<(), Error> {
        let queue = self.shared.options.prefix.queue(Kind::Work, &target);
        shift.made += 1;
        let number = shift.made;
        let channel = &shift.channel;
        // It holds for the consumers that are made after it.
        in_time("set a prefetch", channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        let consume = channel.basic_consume(
            queue.as_str().into(),
            tag_name(number).into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = in_time("consume", consume).await?;
        let whose = target.clone();
        let arrivals = consumer.map(Some).chain(futures::stream::iter([None])).map(move |delivery| Arrival {
            target: whose.clone(),
            consumer: number,
            delivery,
        });
        shift.arrivals.push(arrivals.boxed());
        shift.active.insert(target, Active { consumer: number, prefetch });
        Ok(())
    }

    fn arrived(&self, arrival: Arrival, declarer: &mut Declarer, shift: &mut Shift) -> Result<(), Error> {
        let Arrival { target, consumer, delivery } = arrival;
        match delivery {
            Some(Ok(delivery)) => self.delivered(&target, &delivery, shift),
            Some(Err(source)) => return Err(Error::Broker { during: "consume", source }),
            None if shift.active.get(&target).is_some_and(|active| active.consumer == consumer) => {
                // The broker ended it: the queue was deleted. It is made again if it is still wished for.
                shift.active.remove(&target);
                declarer.forget(Kind::Work, &target);
                self.shared.shelves.look_again(&target);
            }
            None => {}
        }
        Ok(())
    }

    fn delivered(&self, target: &ServiceName, delivery: &Delivery, shift: &mut Shift) {
        let shared = &self.shared;
        let tag = Tag { epoch: shift.epoch, number: delivery.delivery_tag };
        shared.metrics.consumed.inc();
        shared.gate.consumed(target);
        let Some((id, priority)) = read(delivery) else {
            tracing::warn!(queue = %delivery.routing_key, "a message that is none of the hub's was taken off its queue");
            return shift.acknowledge(tag);
        };
        if let Some(twice) = shared.shelves.arrive(target, Place::new(priority, id), tag, shared.now()) {
            shared.metrics.stale.inc();
            shift.acknowledge(twice);
        }
        shared.signals.due(target);
    }

    /// Gives back what nobody wants, and lets go of claims that have lapsed.
    fn tidy(&self, shift: &mut Shift) {
        let shared = &self.shared;
        for tag in shared.shelves.lapsed(shared.ports.clock.now()) {
            shift.acknowledge(tag);
        }
        for unwanted in shared.shelves.unwanted(shared.now(), shared.options.patience) {
            let Unwanted { target, ids, tags } = unwanted;
            shared.metrics.parked.inc_by(ids.len() as u64);
            shared.gate.note_parked(&target);
            let (shared, rows) = (Arc::clone(shared), Arc::clone(&self.rows));
            let chore = async move {
                // Acknowledged in any case: a row that was not parked is overdue sooner or later.
                if let Err(error) = rows.park(ids).await {
                    tracing::debug!(%error, "rows that nobody wants are left to the sweeper");
                }
                shared.acknowledge(tags);
            };
            shift.chores.push(chore.boxed());
        }
        for target in shift.unusable.drain(..) {
            shared.shelves.look_again(&target);
        }
        let (waiting, held) = shared.shelves.counts();
        shared.metrics.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        shared.metrics.held.set(i64::try_from(held).unwrap_or(i64::MAX));
    }
}

impl Shift {
    fn acknowledge(&mut self, tag: Tag) {
        if tag.epoch == self.epoch {
            let channel = self.channel.clone();
            let ack = async move { channel.basic_ack(tag.number, BasicAckOptions::default()).await };
            self.acking.push(ack.boxed());
        }
    }

    async fn stop(&mut self, target: &ServiceName) -> Result<(), Error> {
        let Some(active) = self.active.remove(target) else { return Ok(()) };
        let cancel =
            self.channel.basic_cancel(tag_name(active.consumer).into(), BasicCancelOptions::default());
        in_time("stop consuming", cancel).await
    }
}

fn tag_name(consumer: u64) -> String {
    format!("hub-{consumer}")
}
