//! A group's parts, and how they are put together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use hub_core::error::code;
use hub_core::id::NodeId;
use hub_core::port::{Clock, Leadership, Stamper, StateMachine};
use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;
use prometheus::Registry;
use tokio::sync::{mpsc, oneshot, watch};

use super::admission::Admission;
use super::batcher::Batcher;
use super::kinds::Kinds;
use super::leadership::{self, Heard};
use super::proposal::Item;
use super::read::ReadGate;
use crate::config::GroupOptions;
use crate::failure::{FirstFault, GroupFailure};
use crate::log_store::{LogHandle, LogStore, OpenError};
use crate::metrics::{GroupMetrics, LiveMetrics};
use crate::network::{Network, Transport};
use crate::proto as pb;
use crate::spawn::Tasks;
use crate::state_machine::{Adapter, AdapterParts, Applied};
use crate::type_config::{C, LeaderId, NodeAddr};

/// What the parts of a group share.
pub(crate) struct Core<M: StateMachine> {
    pub(crate) options: GroupOptions,
    pub(crate) raft: Raft<C, Adapter<M>>,
    pub(crate) transport: Transport,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stamper: Option<Arc<dyn Stamper<M::Command>>>,
    pub(crate) metrics: Arc<GroupMetrics>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) applied: Applied,
    pub(super) heard: Arc<Heard>,
    pub(super) kinds: Kinds,
    pub(super) admission: Arc<Admission>,
    pub(super) queue: mpsc::UnboundedSender<Item<M::Command>>,
    pub(super) reads: ReadGate,
    pub(crate) tasks: Tasks,
    pub(super) fault: FirstFault,
    pub(super) failure: watch::Sender<Option<GroupFailure>>,
    pub(super) stopping: AtomicBool,
    pub(super) log_closed: Mutex<Option<oneshot::Receiver<()>>>,
}

/// A replicated group over the state machine `M`. Cheap to clone.
pub struct Group<M: StateMachine> {
    pub(crate) core: Arc<Core<M>>,
}

impl<M: StateMachine> Clone for Group<M> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core) }
    }
}

async fn open_log(options: &GroupOptions) -> Result<(LogStore, oneshot::Receiver<()>), OpenError> {
    let (dir, log) = (options.log_dir.clone(), options.log.clone());
    let opened = tokio::task::spawn_blocking(move || LogStore::open(&dir, &log)).await;
    opened.map_err(|error| OpenError::start(&options.name, error))?
}

impl<M: StateMachine> Group<M> {
    /// Opens the log, applies what is known to be committed, and takes part. The stamper runs on the leader just before
    /// each entry is proposed.
    ///
    /// # Errors
    /// The data is damaged, the disk fails, or the options do not fit.
    pub async fn open(
        options: GroupOptions,
        machine: M,
        transport: &Transport,
        stamper: Option<Arc<dyn Stamper<M::Command>>>,
        registry: &Registry,
    ) -> Result<Self, OpenError> {
        let name = Arc::clone(&options.name);
        let metrics =
            GroupMetrics::register(registry, &name).map_err(|error| OpenError::start(&name, error))?;
        let metrics = Arc::new(metrics);
        let (log, log_closed) = open_log(&options).await?;
        let running = Arc::new(AtomicBool::new(false));
        let parts = AdapterParts {
            metrics: Arc::clone(&metrics),
            running: Arc::clone(&running),
            copies: options.copies_dir.clone(),
            fault: log.fault(),
        };
        let adapter = Adapter::open(machine, parts).await;
        let (adapter, applied) =
            adapter.map_err(|source| OpenError::Io { path: options.copies_dir.clone(), source })?;
        check_reach(&options, &log, &applied)?;
        let (log_handle, fault) = (log.handle(), log.fault());
        let config = options.openraft().map_err(|error| OpenError::start(&name, error))?;
        let network = Network {
            transport: Arc::clone(&transport.inner),
            group: Arc::clone(&name),
            metrics: Arc::clone(&metrics),
        };
        let raft = Raft::build(transport.node().0, config, network, log, adapter).await;
        // What is committed is applied here.
        let raft = raft.map_err(|error| OpenError::Start {
            group: name.to_string(),
            reason: error.to_string(),
            code: fault.code().unwrap_or(code::INTERNAL),
        })?;
        running.store(true, Ordering::Release);
        raft.run();
        let (queue, items) = mpsc::unbounded_channel();
        let (leadership_tx, leadership_rx) = watch::channel(Leadership::default());
        let admission =
            Admission::new(options.max_waiting, options.max_waiting_bytes, metrics.waiting.clone());
        let core = Arc::new(Core {
            raft,
            transport: transport.clone(),
            clock: Arc::clone(&transport.inner.clock),
            stamper,
            leadership: leadership_rx,
            heard: Arc::new(Heard::new(transport.inner.clock.instant())),
            applied,
            kinds: Kinds::default(),
            admission,
            queue,
            reads: ReadGate::default(),
            tasks: Tasks::new(),
            fault,
            failure: watch::Sender::new(None),
            stopping: AtomicBool::new(false),
            log_closed: Mutex::new(Some(log_closed)),
            metrics,
            options,
        });
        core.start(items, leadership_tx, log_handle, registry);
        Ok(Self { core })
    }

    /// Makes this node the only member of a new group. Does nothing if the group has members already.
    ///
    /// # Errors
    /// The group has failed.
    pub async fn initialize(&self, address: &str) -> Result<(), OpenError> {
        let core = &self.core;
        let fail = |error: &dyn std::fmt::Display| OpenError::start(&core.options.name, error);
        if core.raft.is_initialized().await.map_err(|error| fail(&error))? {
            return Ok(());
        }
        let members: BTreeMap<u64, NodeAddr> =
            [(core.transport.node().0, NodeAddr { addr: address.to_owned() })].into();
        core.raft.initialize(members).await.map_err(|error| fail(&error))
    }

    /// Nothing was ever written to this node's log. Asked of the group itself: its status may lag behind a start.
    ///
    /// # Errors
    /// The group has failed.
    pub async fn is_empty(&self) -> Result<bool, OpenError> {
        let empty = self.core.raft.with_raft_state(|state| state.log_ids.last().is_none()).await;
        empty.map_err(|error| OpenError::start(&self.core.options.name, error))
    }

    /// Where the group stands, as this node knows.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        self.core.status()
    }

    /// Ends when the group cannot go on: what happened. The process must stop then.
    pub async fn failed(&self) -> GroupFailure {
        let mut failure = self.core.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await.ok().and_then(|failure| failure.clone());
        failed.unwrap_or_else(|| GroupFailure { code: code::INTERNAL, reason: "group is gone".into() })
    }

    /// Makes a checkpoint now, so that the log can be purged up to it.
    ///
    /// # Errors
    /// The group has failed.
    pub async fn checkpoint(&self) -> Result<(), OpenError> {
        let started = self.core.raft.trigger().snapshot().await;
        started.map_err(|error| OpenError::start(&self.core.options.name, error))
    }
}

/// The log must reach back to what the state has applied, or nothing can bring the state up.
fn check_reach(options: &GroupOptions, log: &LogStore, applied: &Applied) -> Result<(), OpenError> {
    let applied = applied.borrow().as_ref().map(crate::type_config::LogId::index);
    let path = options.log_dir.clone();
    match (log.purged_index(), applied) {
        (Some(purged), applied) if applied.is_none_or(|applied| applied < purged) => {
            let applied =
                applied.map_or_else(|| "nowhere".to_owned(), |applied| format!("to entry {applied}"));
            let detail = format!("it reaches {applied}, but the log begins after entry {purged}");
            Err(OpenError::Damaged { what: "state", path, detail })
        }
        // Votes and acknowledgements went with it: a node that forgot them could give them twice.
        (None, Some(applied)) if log.is_virgin() => {
            let detail = format!("it is empty, but the state has applied entry {applied}");
            Err(OpenError::Damaged { what: "log", path, detail })
        }
        _ => Ok(()),
    }
}

/// Where a group stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// Which group.
    pub group: Arc<str>,
    /// Who leads, and whether that is this node.
    pub leadership: Leadership,
    /// Index of the last entry in this node's log.
    pub last_log_index: u64,
    /// Index of the last entry known to be committed.
    pub committed_index: u64,
    /// Index of the last entry that was applied here.
    pub applied_index: u64,
    /// Index of the last entry that was deleted from the log here.
    pub purged_index: u64,
    /// Index of the last entry in a durable checkpoint here.
    pub snapshot_index: u64,
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who only follows.
    pub learners: Vec<NodeId>,
    /// On the leader: how far each follower's log certainly reaches.
    pub matched: BTreeMap<NodeId, u64>,
}

impl GroupStatus {
    /// The node is part of the group.
    #[must_use]
    pub fn knows(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }
}

impl<M: StateMachine> Core<M> {
    fn start(
        self: &Arc<Self>,
        items: mpsc::UnboundedReceiver<Item<M::Command>>,
        leadership: watch::Sender<Leadership>,
        log: LogHandle,
        registry: &Registry,
    ) {
        let name = &self.options.name;
        self.tasks.spawn(leadership::watch(Arc::clone(self), leadership));
        self.tasks.spawn(Batcher::new(Arc::clone(self), items).run());
        let (core, handle, delay) = (Arc::downgrade(self), log.clone(), self.options.log.mark_delay);
        self.tasks.spawn(async move {
            if let Err(error) = handle.keep_mark(delay).await
                && let Some(core) = core.upgrade()
            {
                core.fault.note_io(&error);
                core.fail(format!("the log's synced mark cannot be written: {error}"));
            }
        });
        let live = LiveMetrics::new(self.raft.metrics(), log, name);
        if let Err(error) = live.and_then(|live| registry.register(Box::new(live))) {
            tracing::error!(%error, group = %name, "metrics of the group are not shown");
        }
        self.transport.inner.register(name, Arc::clone(self) as Arc<dyn crate::network::Endpoint>);
    }

    /// The group cannot go on.
    pub(crate) fn fail(&self, reason: String) {
        if self.stopping.load(Ordering::Acquire) {
            return;
        }
        let code = self.fault.code().unwrap_or(code::INTERNAL);
        tracing::error!(group = %self.options.name, %code, %reason, "group has failed");
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert_with(|| GroupFailure { code, reason: reason.into() });
            first
        });
    }

    /// The group takes no more proposals and reads.
    pub(super) fn is_over(&self) -> bool {
        self.stopping.load(Ordering::Acquire) || self.failure.borrow().is_some()
    }

    /// This node leads, under this leader id.
    pub(crate) fn leading(&self) -> Option<LeaderId> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.state.is_leader().then(|| *metrics.vote.leader_id())
    }

    pub(crate) fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index =
            |id: &Option<crate::type_config::LogId>| id.as_ref().map_or(0, crate::type_config::LogId::index);
        let membership = metrics.membership_config.membership();
        let replication = metrics.replication.iter().flatten();
        GroupStatus {
            group: Arc::clone(&self.options.name),
            leadership: *self.leadership.borrow(),
            last_log_index: metrics.last_log_index.unwrap_or(0),
            committed_index: index(&metrics.local_committed),
            applied_index: index(&metrics.last_applied),
            purged_index: index(&metrics.purged),
            snapshot_index: index(&metrics.snapshot),
            voters: membership.voter_ids().map(NodeId).collect(),
            learners: membership.learner_ids().map(NodeId).collect(),
            matched: replication
                .filter_map(|(node, id)| Some((NodeId(*node), id.as_ref()?.index())))
                .collect(),
        }
    }
}

impl From<&GroupStatus> for pb::GroupStatus {
    fn from(status: &GroupStatus) -> Self {
        Self {
            group: status.group.to_string(),
            leader: status.leadership.leader.map_or(0, |leader| leader.0),
            term: status.leadership.term,
            ready: status.leadership.ready,
            last_log_index: status.last_log_index,
            committed_index: status.committed_index,
            applied_index: status.applied_index,
            purged_index: status.purged_index,
            snapshot_index: status.snapshot_index,
            voters: status.voters.iter().map(|node| node.0).collect(),
            learners: status.learners.iter().map(|node| node.0).collect(),
        }
    }
}
