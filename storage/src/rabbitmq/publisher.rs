//! Publishes: many at a time on one channel, each confirmed by the broker, none waited for alone.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use hub_core::id::{MessageId, ServiceName};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, Connection, Event};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::broker::Shared;
use super::connection::{channel, in_time};
use super::error::Error;
use super::letter::{Content, Letter, returned};
use super::name::Kind;
use super::rows::Rows;
use super::topology::Declarer;

/// Most letters on the way without a confirmation.
const UNCONFIRMED: usize = 1_000;
/// How long a confirmation is waited for. After it the row is left to the sweeper.
const CONFIRM: Duration = Duration::from_secs(20);
/// How long the ends of letters are waited for once the connection has failed.
const COLLECT: Duration = Duration::from_secs(2);
/// Most rows parked in one step.
const PARK: usize = 500;

/// Publishes what is in its boxes, over one connection after the other.
pub(super) struct Publisher {
    pub(super) shared: Arc<Shared>,
    pub(super) rows: Arc<dyn Rows>,
    pub(super) letters: mpsc::UnboundedReceiver<Letter>,
    pub(super) burials: mpsc::Receiver<Letter>,
    /// Taken out of the boxes and not confirmed yet when the last connection ended.
    pub(super) again: VecDeque<Letter>,
}

/// How publishing one letter ended.
struct Done {
    letter: Letter,
    /// `None`: no confirmation in time.
    result: Option<lapin::Result<Confirmation>>,
}

/// What is under way over one connection.
pub(super) struct Flight {
    channel: Channel,
    /// To be sent.
    next: VecDeque<Letter>,
    sent: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Refused by their queues.
    refused: Vec<MessageId>,
    parking: Option<BoxFuture<'static, ()>>,
    blocked: bool,
}

impl Publisher {
    /// Makes a channel ready, and takes up what the last connection left.
    pub(super) async fn begin(&mut self, connection: &Connection) -> Result<Flight, Error> {
        let channel = self.open(connection).await?;
        let mut flight = Flight {
            channel,
            next: std::mem::take(&mut self.again),
            sent: FuturesUnordered::new(),
            refused: Vec::new(),
            parking: None,
            blocked: false,
        };
        self.set_blocked(&mut flight, connection.status().blocked());
        Ok(flight)
    }

    async fn open(&self, connection: &Connection) -> Result<Channel, Error> {
        let channel = channel(connection).await?;
        in_time("turn confirmations on", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(channel)
    }

    /// Publishes until the connection fails, or until all is published after `stop`. Whatever becomes of this, give the
    /// flight to [`Self::collect`].
    pub(super) async fn run(
        &mut self,
        connection: &Connection,
        declarer: &mut Declarer,
        flight: &mut Flight,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let mut events = pin!(connection.events_listener());
        let mut gathered = Vec::new();
        loop {
            self.send(declarer, flight).await?;
            self.park(flight);
            if stop.is_cancelled() && flight.is_idle() && self.letters.is_empty() {
                return Ok(());
            }
            let room = if flight.blocked { 0 } else { UNCONFIRMED.saturating_sub(flight.sent.len()) };
            self.shared.metrics.unconfirmed.set(i64::try_from(flight.sent.len()).unwrap_or(i64::MAX));
            tokio::select! {
                Some(done) = flight.sent.next(), if !flight.sent.is_empty() => self.done(done, declarer, flight)?,
                _ = self.letters.recv_many(&mut gathered, room), if room > 0 && flight.next.is_empty() => {
                    flight.next.extend(gathered.drain(..));
                }
                Some(burial) = self.burials.recv(), if room > 0 && flight.next.is_empty() => {
                    flight.next.push_back(burial);
                }
                () = parked(&mut flight.parking) => flight.parking = None,
                event = events.next() => self.heard(event, flight)?,
                () = stop.cancelled(), if !stop.is_cancelled() => {}
            }
        }
    }

    fn heard(&self, event: Option<Event>, flight: &mut Flight) -> Result<(), Error> {
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                tracing::warn!(%reason, "RabbitMQ takes nothing for now; publishing pauses");
                self.set_blocked(flight, true);
            }
            Some(Event::ConnectionUnblocked) => {
                tracing::info!("RabbitMQ takes messages again");
                self.set_blocked(flight, false);
            }
            Some(Event::Error(source)) => {
                return Err(Error::Broker { during: "keep the connection", source });
            }
            Some(_) => {}
            None => return Err(Error::Timeout("keep the connection")),
        }
        Ok(())
    }

    fn set_blocked(&self, flight: &mut Flight, blocked: bool) {
        flight.blocked = blocked;
        self.shared.gate.set_open(!blocked);
        self.shared.metrics.blocked.set(i64::from(blocked));
        if !blocked {
            self.shared.refill.notify_one();
        }
    }

    /// Sends as many as may be under way. A queue that cannot be declared takes its letters with it.
    async fn send(&self, declarer: &mut Declarer, flight: &mut Flight) -> Result<(), Error> {
        let now = self.shared.now();
        while !flight.blocked && flight.sent.len() < UNCONFIRMED {
            let Some(letter) = flight.next.front() else { break };
            let given_up = if letter.until <= now {
                true
            } else {
                let (kind, target) = letter.address();
                match declarer.ensure(&self.shared, kind, target).await {
                    Ok(()) => false,
                    Err(error) if error.is_lasting() => true,
                    Err(error) => return Err(error),
                }
            };
            let Some(letter) = flight.next.pop_front() else { break };
            if given_up {
                self.give_up(&letter);
                continue;
            }
            self.shared.metrics.published.inc();
            let queue = letter.content.queue(&self.shared.options.prefix);
            flight.sent.push(deliver(flight.channel.clone(), queue, letter).boxed());
        }
        Ok(())
    }

    fn done(&self, done: Done, declarer: &mut Declarer, flight: &mut Flight) -> Result<(), Error> {
        let Done { letter, result } = done;
        let metrics = &self.shared.metrics;
        let confirmation = match result {
            Some(Ok(confirmation)) => confirmation,
            Some(Err(source)) => {
                flight.next.push_back(letter);
                return Err(Error::Broker { during: "publish", source });
            }
            None => {
                tracing::warn!("RabbitMQ did not confirm an id in time");
                self.give_up(&letter);
                return Ok(());
            }
        };
        match confirmation {
            Confirmation::Ack(None) | Confirmation::NotRequested => {
                metrics.confirmed.inc();
                self.arrived(&letter);
            }
            Confirmation::Ack(Some(back)) => {
                // Which letter came back is written in it: confirmations of several at once are told in any order.
                metrics.returned.inc();
                let (kind, target) = letter.address();
                declarer.forget(kind, target);
                self.give_up(&letter);
                if let Some(parcel) = returned(&self.shared.options.prefix, &back.delivery) {
                    declarer.forget(Kind::Work, &parcel.target);
                    self.shared.send_all(vec![parcel]);
                }
            }
            Confirmation::Nack(_) => {
                metrics.refused.inc();
                if let Content::Outgoing(parcel) = &letter.content {
                    self.shared.gate.refused(&parcel.target);
                    flight.refused.push(parcel.id);
                }
            }
        }
        Ok(())
    }

    fn arrived(&self, letter: &Letter) {
        match &letter.content {
            Content::Outgoing(parcel) => self.shared.gate.arrived(&parcel.target),
            Content::Burial(_) => self.shared.metrics.burials.inc(),
        }
    }

    fn give_up(&self, letter: &Letter) {
        if let Content::Outgoing(parcel) = &letter.content {
            self.shared.gate.left(&parcel.target);
        }
    }

    /// Rows that their queues did not take are parked: there will be room later.
    fn park(&self, flight: &mut Flight) {
        if flight.parking.is_some() || flight.refused.is_empty() {
            return;
        }
        let count = flight.refused.len().min(PARK);
        let ids: Vec<MessageId> = flight.refused.drain(..count).collect();
        let rows = Arc::clone(&self.rows);
        let parking = async move {
            if let Err(error) = rows.park(ids).await {
                tracing::debug!(%error, "rows that a full queue refused are left to the sweeper");
            }
        };
        flight.parking = Some(parking.boxed());
    }

    /// The connection has ended: what is not confirmed goes by the next one.
    pub(super) async fn collect(&mut self, mut flight: Flight) {
        self.shared.gate.set_open(false);
        let lost = async {
            while let Some(Done { letter, result }) = flight.sent.next().await {
                match result {
                    Some(Ok(Confirmation::Ack(None))) => {
                        self.shared.metrics.confirmed.inc();
                        self.arrived(&letter);
                    }
                    _ => flight.next.push_back(letter),
                }
            }
        };
        if tokio::time::timeout(COLLECT, lost).await.is_err() {
            tracing::warn!(count = flight.sent.len(), "ids without a confirmation are left to the sweeper");
        }
        self.again = flight.next;
    }
}

impl Flight {
    fn is_idle(&self) -> bool {
        self.next.is_empty() && self.sent.is_empty() && self.parking.is_none()
    }
}

impl Letter {
    fn address(&self) -> (Kind, &ServiceName) {
        match &self.content {
            Content::Outgoing(parcel) => (Kind::Work, &parcel.target),
            Content::Burial(burial) => (Kind::Dead, &burial.target),
        }
    }
}

async fn deliver(channel: Channel, queue: String, letter: Letter) -> Done {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let (body, properties) = (letter.content.body(), letter.content.properties());
    let published = async {
        let sent = channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties);
        sent.await?.await
    };
    let result = tokio::time::timeout(CONFIRM, published).await.ok();
    Done { letter, result }
}

async fn parked(parking: &mut Option<BoxFuture<'static, ()>>) {
    match parking {
        Some(parking) => parking.await,
        None => std::future::pending().await,
    }
}
