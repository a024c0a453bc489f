//! What the parts of the broker's side share, and the handle by which the store publishes.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hub_core::id::ServiceName;
use tokio::sync::{Notify, mpsc};

use super::gate::Gate;
use super::letter::{Content, Letter};
use super::metrics::Metrics;
use super::options::{Options, Ports};
use super::rows::UNDERTAKEN;
use super::shelves::{Shelves, Tag};
use super::signals::Signals;
use crate::postgres::{Burial, Outbox, Outgoing};

/// A parcel that could not be published for so long is left to the sweeper of whichever node comes first.
const TRY_FOR: Duration = Duration::from_secs(20);
/// Most dead letters that wait to be shown while the broker cannot be reached.
const BURIALS_KEPT: usize = 10_000;

/// What the parts of the broker's side share.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) ports: Ports,
    pub(super) metrics: Metrics,
    pub(super) gate: Gate,
    pub(super) shelves: Shelves,
    pub(super) signals: Signals,
    /// Wakes the sweeper: there may be parked rows to publish.
    pub(super) refill: Notify,
    letters: mpsc::UnboundedSender<Letter>,
    burials: mpsc::Sender<Letter>,
    acks: mpsc::UnboundedSender<Tag>,
}

/// What the service takes out of the boxes.
pub(super) struct Mail {
    pub(super) letters: mpsc::UnboundedReceiver<Letter>,
    pub(super) burials: mpsc::Receiver<Letter>,
    pub(super) acks: mpsc::UnboundedReceiver<Tag>,
}

impl Shared {
    pub(super) fn now(&self) -> Instant {
        self.ports.clock.instant()
    }

    /// Publishes parcels that were let in by the gate.
    pub(super) fn send(&self, parcels: Vec<Outgoing>) {
        let until = self.now() + TRY_FOR;
        for parcel in parcels {
            if !self.shelves.is_wished(&parcel.target) {
                // Nobody consumes its queue here yet: the dispatcher shall want it.
                self.signals.due(&parcel.target);
            }
            // The service holds the other end as long as it runs; after it the sweepers of other nodes find the row.
            drop(self.letters.send(Letter { content: Content::Outgoing(parcel), until }));
        }
    }

    /// Publishes parcels of rows that this node undertook although the gate was not asked for each.
    pub(super) fn send_all(&self, parcels: Vec<Outgoing>) {
        for parcel in &parcels {
            self.gate.force(&parcel.target, 1);
        }
        self.send(parcels);
    }

    /// Shows dead letters.
    pub(super) fn bury(&self, burials: Vec<Burial>) {
        let until = self.now() + Duration::from_secs(3600);
        for burial in burials {
            let letter = Letter { content: Content::Burial(burial), until };
            if self.burials.try_send(letter).is_err() {
                self.metrics.burials_dropped.inc();
            }
        }
    }

    /// Acknowledges deliveries.
    pub(super) fn acknowledge(&self, tags: impl IntoIterator<Item = Tag>) {
        for tag in tags {
            // As with letters: the service holds the other end.
            let _ = self.acks.send(tag);
        }
    }

    /// Uniform between half of `time` and all of it.
    pub(super) fn jittered(&self, time: Duration) -> Duration {
        let half = time / 2;
        half + Duration::from_millis(self.ports.ids.below(u64::try_from(half.as_millis()).unwrap_or(0) + 1))
    }
}

/// The way to the broker. See [`Options::build`].
pub struct Broker {
    shared: Arc<Shared>,
    mail: Mail,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Broker {
    pub(super) fn new(options: Options, ports: Ports, metrics: Metrics) -> Self {
        let (letters, letters_out) = mpsc::unbounded_channel();
        let (burials, burials_out) = mpsc::channel(BURIALS_KEPT);
        let (acks, acks_out) = mpsc::unbounded_channel();
        let shelves = Shelves::new(options.least_prefetch);
        let shared = Shared {
            gate: Gate::new(options.window),
            options,
            ports,
            metrics,
            shelves,
            signals: Signals::default(),
            refill: Notify::new(),
            letters,
            burials,
            acks,
        };
        let mail = Mail { letters: letters_out, burials: burials_out, acks: acks_out };
        Self { shared: Arc::new(shared), mail }
    }

    /// What the store publishes by.
    #[must_use]
    pub fn outlet(&self) -> Outlet {
        Outlet(Arc::clone(&self.shared))
    }

    pub(super) fn into_parts(self) -> (Arc<Shared>, Mail) {
        (self.shared, self.mail)
    }
}

/// What the store publishes by; cheap to clone. Nothing here waits.
#[derive(Clone)]
pub struct Outlet(Arc<Shared>);

impl Outlet {
    /// Whether the broker is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.metrics.connected.get() == 1
    }
}

impl Outbox for Outlet {
    fn undertake(&self, target: &ServiceName) -> Option<Duration> {
        self.0.gate.enter(target).then_some(UNDERTAKEN)
    }

    fn not_written(&self, target: &ServiceName) {
        self.0.gate.left(target);
    }

    fn publish(&self, messages: Vec<Outgoing>) {
        self.0.send(messages);
    }

    fn bury(&self, burials: Vec<Burial>) {
        self.0.bury(burials);
    }
}
