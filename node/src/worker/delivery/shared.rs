//! What the store, the dispatcher and the attempts share: the slots, and whether a target may be called now.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hub_core::control::State;
use hub_core::delivery::{Admission, may_call};
use hub_core::id::{InstanceId, ServiceName};
use hub_core::port::{Clock, Slots};
use hub_core::registry::Service;
use hub_core::time::Timestamp;
use tokio::sync::{Notify, watch};

use super::slots::SlotTable;

/// The control state as this node has it, and word of its changes.
pub type Registry = watch::Receiver<State>;

/// How much longer than the attempt a lease lasts.
const LEASE_MARGIN: Duration = Duration::from_secs(10);

/// Gives delivery slots to the store, and says how many are in use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

impl Handle {
    pub(super) fn new(slots: u32, registry: Registry, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared {
            table: Mutex::new(SlotTable::new(slots)),
            registry,
            clock,
            delivering: AtomicBool::new(false),
            next_due: AtomicI64::new(Timestamp::MAX.as_millis()),
            wake: Notify::new(),
        }))
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.0)
    }

    /// Slots held now: attempts under way, claims under way, and reservations of the store.
    #[must_use]
    pub fn slots_used(&self) -> u32 {
        self.0.table().used()
    }

    /// This node delivers: it leads the queue and is not draining.
    #[must_use]
    pub fn is_delivering(&self) -> bool {
        self.0.delivering.load(Ordering::Acquire)
    }
}

impl Slots for Handle {
    fn try_reserve(&self, target: &ServiceName) -> Option<Duration> {
        self.0.try_reserve(target)
    }

    fn give_back(&self, target: &ServiceName) {
        self.0.table().give_back(target);
        self.0.slot_freed();
    }
}

/// The state behind every [`Handle`].
pub(super) struct Shared {
    table: Mutex<SlotTable>,
    registry: Registry,
    /// The clocks.
    pub(super) clock: Arc<dyn Clock>,
    delivering: AtomicBool,
    /// When the next message becomes due, in milliseconds since the epoch.
    next_due: AtomicI64,
    /// Wakes the dispatcher: a slot it waits for is free, or a message is due earlier than it knew.
    pub(super) wake: Notify,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Shared {
    /// The slots. Never held across an await.
    pub(super) fn table(&self) -> MutexGuard<'_, SlotTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The service as it is registered now.
    pub(super) fn service(&self, name: &ServiceName) -> Option<Arc<Service>> {
        self.registry.borrow().services.get(name).cloned()
    }

    pub(super) fn registry(&self) -> Registry {
        self.registry.clone()
    }

    pub(super) fn set_delivering(&self, delivering: bool) {
        self.delivering.store(delivering, Ordering::Release);
    }

    pub(super) fn is_delivering(&self) -> bool {
        self.delivering.load(Ordering::Acquire)
    }

    /// The one decision, with what this node heard from the target.
    pub(super) fn may_call(&self, name: &ServiceName, service: Option<&Service>) -> Admission {
        let now = self.clock.now();
        let slowed_until = self.table().slowed_until(name);
        may_call(service, slowed_until, now)
    }

    /// How long a claim for this service must last.
    pub(super) fn lease(service: &Service) -> Duration {
        Duration::from_millis(u64::from(service.delivery.timeout_ms)) + LEASE_MARGIN
    }

    fn try_reserve(&self, target: &ServiceName) -> Option<Duration> {
        if !self.is_delivering() {
            return None;
        }
        let service = self.service(target)?;
        let (now, instant) = (self.clock.now(), self.clock.instant());
        let mut table = self.table();
        if may_call(Some(&service), table.slowed_until(target), now) != Admission::Yes {
            return None;
        }
        let lease = Self::lease(&service);
        table.reserve(target, service.delivery.max_concurrency, instant, lease).then_some(lease)
    }

    /// A slot is free: whoever waits for one is woken.
    pub(super) fn slot_freed(&self) {
        let table = self.table();
        if table.any_waiting() || (table.used() == 0 && !self.is_delivering()) {
            drop(table);
            self.wake.notify_one();
        }
    }

    /// A message will be due then; the dispatcher is woken if that is earlier than it knew.
    pub(super) fn due_at(&self, at: Timestamp) {
        if self.next_due.fetch_min(at.as_millis(), Ordering::AcqRel) > at.as_millis() {
            self.wake.notify_one();
        }
    }

    /// When the next message is due, as far as known.
    pub(super) fn next_due(&self) -> Timestamp {
        Timestamp::from_millis(self.next_due.load(Ordering::Acquire))
    }

    /// Forgets the time kept, before the queue is asked anew: what is written down meanwhile is not missed.
    pub(super) fn forget_due(&self) {
        self.next_due.store(Timestamp::MAX.as_millis(), Ordering::Release);
    }
}

/// Slots that this node took for claims or attempts at one target; freed when dropped, whatever happens.
#[derive(Debug)]
pub(super) struct Held {
    shared: Arc<Shared>,
    target: ServiceName,
    count: u32,
}

impl Held {
    /// Takes over slots that the table already counts as running.
    pub(super) const fn new(shared: Arc<Shared>, target: ServiceName, count: u32) -> Self {
        Self { shared, target, count }
    }

    /// Splits one slot off, if there is one left.
    pub(super) fn split(&mut self) -> Option<Self> {
        self.count = self.count.checked_sub(1)?;
        Some(Self { shared: Arc::clone(&self.shared), target: self.target.clone(), count: 1 })
    }

    pub(super) const fn target(&self) -> &ServiceName {
        &self.target
    }

    /// How many slots are left in it.
    pub(super) const fn count(&self) -> u32 {
        self.count
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.count > 0 {
            self.shared.table().finish(&self.target, self.count);
            self.shared.slot_freed();
        }
    }
}

/// An attempt under way at one instance; ends when dropped.
#[derive(Debug)]
pub(super) struct AtInstance<'a> {
    held: &'a Held,
    instance: InstanceId,
}

impl<'a> AtInstance<'a> {
    pub(super) fn start(held: &'a Held, instance: InstanceId) -> Self {
        held.shared.table().start_at(&held.target, &instance);
        Self { held, instance }
    }
}

impl Drop for AtInstance<'_> {
    fn drop(&mut self) {
        self.held.shared.table().end_at(&self.held.target, &self.instance);
    }
}
