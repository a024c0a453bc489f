//! The store as others see it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hub_core::delivery::Settlement;
use hub_core::id::{MessageId, ServiceName};
use hub_core::message::{Cursor, Filter, NewMessage, Page, Record};
use hub_core::port::{
    AcceptMode, AcceptRefusal, Accepted, Backlog, CancelOutcome, Claimed, Consistency, DeadLetterOutcome,
    DeliveryQueue, MessageStore, QueueSignal, StoreError, SweepReport, Want,
};
use hub_core::time::Timestamp;

use super::accept::{self, Queue};
use super::backlog::{self, Depths, Parts};
use super::claim::{self, Looks};
use super::fault::Fault;
use super::link::Link;
use super::options::{Options, Ports};
use super::setup::soon;
use super::signals::Signals;
use super::sweep::{self, LastDrop};
use super::{list, operator, record, settle};

/// The store and delivery queue of this node; cheap to clone. Accepting and signals need its [`Service`](super::Service) to
/// run. Reads are of committed rows, so [`Consistency`] makes no difference.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) options: Options,
    pub(super) ports: Ports,
    /// For all that moves messages.
    pub(super) work: Link,
    /// For what people ask, so that it never holds up the other.
    pub(super) reads: Link,
    pub(super) queue: Queue,
    pub(super) signals: Signals,
    pub(super) parts: Parts,
    pub(super) depths: Depths,
    pub(super) looks: Looks,
    pub(super) last_drop: LastDrop,
}

impl Inner {
    /// A deadline for calls that come without one.
    pub(super) fn soon(&self) -> Instant {
        soon(self.ports.clock.instant())
    }
}

impl Store {
    pub(super) const fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Whether the server takes writes: asked over a connection for work, or when all of them are in use, over one for reads.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it does not answer until `deadline`.
    pub async fn takes_writes(&self, deadline: Instant) -> Result<bool, StoreError> {
        let inner = &self.inner;
        let asked = match inner.work.takes_writes_now(deadline).await {
            Some(asked) => asked,
            None => inner.reads.takes_writes(deadline).await,
        };
        asked.map_err(Fault::of_read)
    }
}

#[async_trait]
impl MessageStore for Store {
    async fn accept(
        &self,
        messages: Vec<NewMessage>,
        mode: AcceptMode,
        deadline: Instant,
    ) -> Result<Vec<Result<Accepted, AcceptRefusal>>, StoreError> {
        accept::accept(&self.inner, messages, mode, deadline).await
    }

    async fn get(
        &self,
        id: MessageId,
        _consistency: Consistency,
        deadline: Instant,
    ) -> Result<Option<Record>, StoreError> {
        record::one(&self.inner.reads, id, deadline).await.map_err(Fault::of_read)
    }

    async fn list(&self, filter: &Filter, after: Option<Cursor>, limit: u32) -> Result<Page, StoreError> {
        let deadline = self.inner.soon();
        list::list(&self.inner.reads, filter, after, limit, deadline).await.map_err(Fault::of_read)
    }

    async fn cancel(&self, id: MessageId, deadline: Instant) -> Result<CancelOutcome, StoreError> {
        operator::cancel(&self.inner, id, deadline).await
    }

    async fn replay(&self, id: MessageId, deadline: Instant) -> Result<DeadLetterOutcome, StoreError> {
        operator::replay(&self.inner, id, deadline).await
    }

    async fn discard(&self, id: MessageId, deadline: Instant) -> Result<DeadLetterOutcome, StoreError> {
        operator::discard(&self.inner, id, deadline).await
    }

    async fn backlog(&self, target: &ServiceName) -> Result<Backlog, StoreError> {
        backlog::one(&self.inner.reads, target, self.inner.soon()).await.map_err(Fault::of_read)
    }

    async fn backlogs(&self) -> Result<Vec<(ServiceName, Backlog)>, StoreError> {
        backlog::all(&self.inner.reads, self.inner.soon()).await.map_err(Fault::of_read)
    }

    async fn sweep(
        &self,
        registered: &(dyn for<'t> Fn(&'t ServiceName) -> bool + Send + Sync),
        retention: Duration,
        limit: u32,
        deadline: Instant,
    ) -> Result<SweepReport, StoreError> {
        sweep::sweep(&self.inner, registered, retention, limit, deadline).await
    }
}

#[async_trait]
impl DeliveryQueue for Store {
    async fn next(&self) -> QueueSignal {
        self.inner.signals.next().await
    }

    async fn claim(&self, wants: Vec<Want>, deadline: Instant) -> Result<Vec<Claimed>, StoreError> {
        claim::claim(&self.inner, wants, deadline).await
    }

    async fn settle(&self, settlements: Vec<Settlement>, deadline: Instant) -> Result<Vec<bool>, StoreError> {
        settle::settle(&self.inner, &settlements, deadline).await
    }

    async fn due(&self) -> Result<(Vec<ServiceName>, Option<Timestamp>), StoreError> {
        claim::due(&self.inner, self.inner.soon()).await.map_err(Fault::of_read)
    }
}
