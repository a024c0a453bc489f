//! The message store and delivery queue over a replicated group of [`SqliteMachine`](super::SqliteMachine)s.

mod accept;
mod disk;
mod propose;
mod queue;
mod service;
mod settler;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hub_core::id::{MessageId, ServiceName};
use hub_core::message::{Cursor, Filter, NewMessage, Page, Record};
use hub_core::port::{
    AcceptMode, AcceptRefusal, Accepted, Backlog, CancelOutcome, Clock, Consistency, DeadLetterOutcome,
    IdSource, MessageStore, ReadError, Replicator, StoreError, Submitted, SweepReport,
};
use tokio::sync::mpsc;

use super::command::{Command, Reply, Sweep};
use super::feed::Feed;
use super::read::Reader;
use propose::unexpected;

pub use disk::{DiskGuard, DiskLimit};
pub use service::StoreService;

/// How long a caller's idempotency key is known.
const KEY_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Settings of the store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Most open messages of one target; more are refused.
    pub max_backlog: u64,
    /// How long a sender is told to wait when a backlog is full.
    pub backlog_retry_after: Duration,
    /// Whose file system is watched: the data folder.
    pub data_folder: std::path::PathBuf,
    /// Below which free space new messages are refused.
    pub disk_limit: DiskLimit,
}

/// What the store needs of others.
pub struct StorePorts {
    /// The group of [`SqliteMachine`](super::SqliteMachine)s.
    pub replicator: Arc<dyn Replicator<Command, Reply>>,
    /// Of this node's machine.
    pub reader: Reader,
    /// The feed that the machine tells, and that stamps for the group.
    pub feed: Arc<Feed>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Request ids.
    pub ids: Arc<dyn IdSource>,
}

/// The store; cheap to clone. Settling and signals need its [`StoreService`] to run.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    options: StoreOptions,
    ports: StorePorts,
    disk: DiskGuard,
    settlements: mpsc::Sender<settler::Waiting>,
}

impl StoreOptions {
    /// 100,000 open messages a target, and the disk limit of `data_folder`'s file system.
    #[must_use]
    pub fn new(data_folder: std::path::PathBuf) -> Self {
        Self {
            max_backlog: 100_000,
            backlog_retry_after: Duration::from_secs(5),
            data_folder,
            disk_limit: DiskLimit::default(),
        }
    }

    /// The store, and the service that has to run for it.
    #[must_use]
    pub fn build(self, ports: StorePorts) -> (StoreService, Store) {
        let (settlements, waiting) = mpsc::channel(settler::QUEUE);
        let disk = DiskGuard::new(self.data_folder.clone(), self.disk_limit);
        let inner = Arc::new(Inner { options: self, ports, disk, settlements });
        (StoreService::new(Arc::clone(&inner), waiting), Store { inner })
    }
}

impl Store {
    /// Whether so little disk is free that new messages are refused. Unknown counts as enough: a write finds out.
    #[must_use]
    pub fn disk_is_low(&self) -> bool {
        self.inner.disk.is_low(self.inner.ports.clock.instant()).unwrap_or(false)
    }
}

fn unread(error: ReadError) -> StoreError {
    let retryable = error != ReadError::Stopped;
    StoreError::Unavailable { reason: error.to_string(), retryable }
}

#[async_trait]
impl MessageStore for Store {
    async fn accept(
        &self,
        messages: Vec<NewMessage>,
        mode: AcceptMode,
        deadline: Instant,
    ) -> Result<Vec<Result<Accepted, AcceptRefusal>>, StoreError> {
        self.inner.accept(messages, mode, deadline).await
    }

    async fn get(
        &self,
        id: MessageId,
        consistency: Consistency,
        deadline: Instant,
    ) -> Result<Option<Record>, StoreError> {
        let ports = &self.inner.ports;
        if consistency == Consistency::Linearizable {
            ports.replicator.read_barrier(deadline).await.map_err(unread)?;
        }
        Ok(ports.reader.record(id).await?)
    }

    async fn list(&self, filter: &Filter, after: Option<Cursor>, limit: u32) -> Result<Page, StoreError> {
        Ok(self.inner.ports.reader.list(filter, after, limit).await?)
    }

    async fn cancel(&self, id: MessageId, deadline: Instant) -> Result<CancelOutcome, StoreError> {
        match self.inner.propose(Command::Cancel(id), deadline).await? {
            Reply::Cancelled(outcome) => Ok(outcome),
            other => Err(unexpected(&other)),
        }
    }

    async fn replay(&self, id: MessageId, deadline: Instant) -> Result<DeadLetterOutcome, StoreError> {
        match self.inner.propose(Command::Replay(id), deadline).await? {
            Reply::DeadLetter(outcome) => Ok(outcome),
            other => Err(unexpected(&other)),
        }
    }

    async fn discard(&self, id: MessageId, deadline: Instant) -> Result<DeadLetterOutcome, StoreError> {
        match self.inner.propose(Command::Discard(id), deadline).await? {
            Reply::DeadLetter(outcome) => Ok(outcome),
            other => Err(unexpected(&other)),
        }
    }

    async fn backlog(&self, target: &ServiceName) -> Result<Backlog, StoreError> {
        Ok(self.inner.ports.reader.backlog(target).await?)
    }

    async fn backlogs(&self) -> Result<Vec<(ServiceName, Backlog)>, StoreError> {
        Ok(self.inner.ports.reader.backlogs().await?)
    }

    async fn sweep(
        &self,
        registered: &(dyn for<'t> Fn(&'t ServiceName) -> bool + Send + Sync),
        retention: Duration,
        limit: u32,
        deadline: Instant,
    ) -> Result<SweepReport, StoreError> {
        let Some(term) = self.inner.leads() else { return Ok(SweepReport::default()) };
        let now = self.inner.ports.clock.now();
        let endings = self.inner.ports.reader.endings(now, retention, KEY_LIFETIME, limit).await?;
        if !endings.work {
            return Ok(SweepReport { next: endings.next, ..SweepReport::default() });
        }
        let gone = endings.targets.into_iter().filter(|target| !registered(target)).collect();
        let command = Command::Sweep(Sweep { limit, retention, gone });
        let proposal = Submitted { request: self.inner.ports.ids.request_id(), command };
        match self.inner.propose_in_term(term, proposal, deadline).await? {
            Reply::Swept(report) => Ok(report),
            other => Err(unexpected(&other)),
        }
    }
}
