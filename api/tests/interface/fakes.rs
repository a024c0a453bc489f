//! Ports in memory: small enough to be seen through, strict enough to notice what the interface gets wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hub_core::control::{Command, Machine, Reply, State};
use hub_core::id::{InstanceId, MessageId, NodeId, RequestId, ServiceName};
use hub_core::message::{Cursor, Filter, Fingerprint, NewMessage, Page, Record, Status};
use hub_core::port::{
    AcceptMode, AcceptRefusal, Accepted, Backlog, CancelOutcome, Check, CheckReport, CheckStatus, Clock,
    ClusterControl, ClusterError, ClusterStatus, Committed, Consistency, DeadLetterOutcome, Entry, Group,
    GroupStatus, HealthReports, IdSource, Leadership, MemoryMachine, MessageStore, NodeStatus, ProposeError,
    QuorumCheck, ReadError, Readiness, Replicator, Role, StoreError, Submitted, SweepReport,
};
use hub_core::time::Timestamp;
use uuid::Uuid;

use crate::fake_cache::FakeCache;

/// 2026-11-23T08:55:00.123Z.
pub const NOW_MS: i64 = 1_795_424_100_123;

/// A wall clock that stands still until it is moved; deadlines run on the real one.
pub struct FakeClock(pub AtomicI64);

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        self.wall()
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }

    #[expect(clippy::disallowed_methods, reason = "deadlines of tests run on real time")]
    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn since_boot(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// Ids that count up.
#[derive(Default)]
pub struct FakeIds(AtomicU64);

impl IdSource for FakeIds {
    fn message_id(&self, now: Timestamp) -> MessageId {
        let count = self.0.fetch_add(1, Ordering::SeqCst);
        let millis = u64::try_from(now.as_millis()).unwrap();
        let mut random = [0; 10];
        random[2..].copy_from_slice(&count.to_be_bytes());
        MessageId(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    fn request_id(&self) -> RequestId {
        RequestId(Uuid::from_u128(u128::from(self.0.fetch_add(1, Ordering::SeqCst)) + 1))
    }

    fn below(&self, _: u64) -> u64 {
        0
    }

    fn secret(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// Makes the store fail.
pub type StoreFault = fn() -> StoreError;

/// A store in memory.
#[derive(Default)]
pub struct FakeStore {
    pub records: Mutex<BTreeMap<MessageId, Record>>,
    pub taken: Mutex<Vec<NewMessage>>,
    pub calls: Mutex<Vec<(usize, AcceptMode)>>,
    pub fault: Mutex<Option<StoreFault>>,
    /// `accept` never answers.
    pub stuck: Mutex<bool>,
    /// `accept` panics.
    pub panics: Mutex<bool>,
    /// What becomes of accepted messages at once.
    pub fate: Mutex<Option<fn(&mut Record)>>,
    pub depth: AtomicU64,
    keys: Mutex<BTreeMap<(String, String), (Fingerprint, Accepted)>>,
}

impl FakeStore {
    fn check(&self) -> Result<(), StoreError> {
        self.fault.lock().unwrap().map_or(Ok(()), |fault| Err(fault()))
    }

    fn take(&self, new: NewMessage) -> Result<Accepted, AcceptRefusal> {
        if let Some(key) = &new.idempotency {
            let known = self.keys.lock().unwrap().get(&(key.caller.clone(), key.key.clone())).cloned();
            match known {
                Some((print, first)) if print == key.fingerprint => {
                    return Ok(Accepted { replayed: true, ..first });
                }
                Some(_) => return Err(AcceptRefusal::KeyReused),
                None => {}
            }
        }
        if new.target.as_str() == "full" {
            let retry_after = Duration::from_millis(2_500);
            return Err(AcceptRefusal::BacklogFull { target: new.target, retry_after });
        }
        let accepted =
            Accepted { id: new.id, status: Status::Pending, created_at: new.created_at, replayed: false };
        if let Some(key) = &new.idempotency {
            let entry = (key.fingerprint, accepted.clone());
            self.keys.lock().unwrap().insert((key.caller.clone(), key.key.clone()), entry);
        }
        let mut record = record(&new);
        if let Some(fate) = *self.fate.lock().unwrap() {
            fate(&mut record);
        }
        self.records.lock().unwrap().insert(new.id, record);
        self.taken.lock().unwrap().push(new);
        Ok(accepted)
    }
}

fn record(new: &NewMessage) -> Record {
    Record {
        message: new.to_message(),
        status: Status::Pending,
        retry_count: 0,
        processed_at: None,
        error_message: None,
        dead_reason: None,
        deliver_at: new.deliver_at,
        retry_at: None,
        attempts: Vec::new(),
    }
}

#[async_trait]
impl MessageStore for FakeStore {
    async fn accept(
        &self,
        messages: Vec<NewMessage>,
        mode: AcceptMode,
        _: Instant,
    ) -> Result<Vec<Result<Accepted, AcceptRefusal>>, StoreError> {
        self.calls.lock().unwrap().push((messages.len(), mode));
        assert!(!*self.panics.lock().unwrap(), "the store panics");
        let stuck = *self.stuck.lock().unwrap();
        if stuck {
            std::future::pending::<()>().await;
        }
        self.check()?;
        if mode == AcceptMode::Atomic && messages.iter().any(|message| message.target.as_str() == "full") {
            return Ok(messages.iter().map(|_| Err(AcceptRefusal::BatchRefused)).collect());
        }
        Ok(messages.into_iter().map(|message| self.take(message)).collect())
    }

    async fn get(&self, id: MessageId, _: Consistency, _: Instant) -> Result<Option<Record>, StoreError> {
        self.check()?;
        Ok(self.records.lock().unwrap().get(&id).cloned())
    }

    async fn list(&self, filter: &Filter, after: Option<Cursor>, limit: u32) -> Result<Page, StoreError> {
        self.check()?;
        let records = self.records.lock().unwrap();
        let fits = |record: &&Record| {
            let message = &record.message;
            filter.status.is_none_or(|status| record.status == status)
                && filter.target.as_ref().is_none_or(|target| *target == message.target)
                && filter.sender.as_ref().is_none_or(|sender| *sender == message.sender)
                && filter.visible_to.as_ref().is_none_or(|me| *me == message.sender || *me == message.target)
                && after.is_none_or(|cursor| message.id < cursor.0)
        };
        let mut items: Vec<Record> =
            records.values().rev().filter(fits).take(limit as usize + 1).cloned().collect();
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next = items.last().filter(|_| more).map(|last| Cursor(last.message.id));
        Ok(Page { items, next })
    }

    async fn cancel(&self, id: MessageId, _: Instant) -> Result<CancelOutcome, StoreError> {
        self.check()?;
        Ok(match self.records.lock().unwrap().get_mut(&id) {
            None => CancelOutcome::NotFound,
            Some(record) if record.status == Status::Pending => {
                record.status = Status::Cancelled;
                CancelOutcome::Cancelled { may_have_arrived: false }
            }
            Some(record) => CancelOutcome::Conflict(record.status),
        })
    }

    async fn replay(&self, id: MessageId, _: Instant) -> Result<DeadLetterOutcome, StoreError> {
        self.end(id, Status::Pending)
    }

    async fn discard(&self, id: MessageId, _: Instant) -> Result<DeadLetterOutcome, StoreError> {
        self.end(id, Status::Discarded)
    }

    async fn backlog(&self, _: &ServiceName) -> Result<Backlog, StoreError> {
        self.check()?;
        let depth = self.depth.load(Ordering::SeqCst);
        let oldest = (depth > 0).then(|| Timestamp::from_millis(NOW_MS - 1_500));
        Ok(Backlog { depth, oldest, ..Backlog::default() })
    }

    async fn backlogs(&self) -> Result<Vec<(ServiceName, Backlog)>, StoreError> {
        Ok(Vec::new())
    }

    async fn sweep(
        &self,
        _: &(dyn for<'t> Fn(&'t ServiceName) -> bool + Send + Sync),
        _: Duration,
        _: u32,
        _: Instant,
    ) -> Result<SweepReport, StoreError> {
        Ok(SweepReport::default())
    }
}

impl FakeStore {
    fn end(&self, id: MessageId, to: Status) -> Result<DeadLetterOutcome, StoreError> {
        self.check()?;
        Ok(match self.records.lock().unwrap().get_mut(&id) {
            None => DeadLetterOutcome::NotFound,
            Some(record) if record.status != Status::DeadLetter => DeadLetterOutcome::Conflict(record.status),
            Some(record) if to == Status::Pending && record.message.expires_at.is_some() => {
                DeadLetterOutcome::Expired
            }
            Some(record) => {
                record.status = to;
                DeadLetterOutcome::Done(to)
            }
        })
    }
}

/// The real control machine, applied at once.
#[derive(Default)]
pub struct FakeControl {
    machine: Mutex<(u64, Machine)>,
    pub fault: Mutex<Option<ProposeError>>,
    pub read_fault: Mutex<Option<ReadError>>,
    pub barriers: AtomicU64,
}

impl FakeControl {
    pub fn view(&self) -> State {
        self.machine.lock().unwrap().1.view()
    }

    pub fn apply(&self, request: RequestId, command: Command) -> Committed<Reply> {
        let mut guard = self.machine.lock().unwrap();
        let (index, machine) = &mut *guard;
        *index += 1;
        let now = Timestamp::from_millis(NOW_MS);
        let commands = vec![Submitted { request, command }];
        let reply = machine.apply(&Entry { index: *index, term: 1, now, commands }).pop().unwrap();
        Committed { index: *index, reply }
    }
}

#[async_trait]
impl Replicator<Command, Reply> for FakeControl {
    async fn propose(
        &self,
        proposal: Submitted<Command>,
        _: Instant,
    ) -> Result<Committed<Reply>, ProposeError> {
        if let Some(fault) = self.fault.lock().unwrap().clone() {
            return Err(fault);
        }
        Ok(self.apply(proposal.request, proposal.command))
    }

    async fn propose_in_term(
        &self,
        _: u64,
        _: Vec<Submitted<Command>>,
        _: Instant,
    ) -> Result<Vec<Committed<Reply>>, ProposeError> {
        Err(ProposeError::LeadershipMoved)
    }

    async fn read_barrier(&self, _: Instant) -> Result<u64, ReadError> {
        self.barriers.fetch_add(1, Ordering::SeqCst);
        match self.read_fault.lock().unwrap().clone() {
            Some(fault) => Err(fault),
            None => Ok(self.machine.lock().unwrap().0),
        }
    }

    fn leadership(&self) -> Leadership {
        Leadership { term: 1, leader: Some(NodeId(2)), ready: false }
    }

    async fn leadership_changed(&self, _: Leadership) -> Leadership {
        std::future::pending().await
    }
}

/// A cluster of nodes 1 (this one) to 3.
#[derive(Default)]
pub struct FakeCluster {
    pub checks: Mutex<Vec<Check>>,
    pub fault: Mutex<Option<ClusterError>>,
    pub asked: Mutex<Vec<String>>,
}

impl FakeCluster {
    pub fn set_check(&self, status: CheckStatus) {
        let detail = "as the test wants it".to_owned();
        *self.checks.lock().unwrap() = vec![Check { name: "store", status, detail }];
    }

    fn done<T>(&self, asked: String, value: T) -> Result<T, ClusterError> {
        self.asked.lock().unwrap().push(asked);
        self.fault.lock().unwrap().clone().map_or(Ok(value), Err)
    }
}

#[async_trait]
impl ClusterControl for FakeCluster {
    fn node_id(&self) -> NodeId {
        NodeId(1)
    }

    fn status(&self) -> ClusterStatus {
        let group = GroupStatus {
            leader: Some(NodeId(2)),
            voters: vec![NodeId(1), NodeId(2), NodeId(3)],
            ..GroupStatus::default()
        };
        let node = |id: u64| NodeStatus {
            id: NodeId(id),
            rest_url: format!("http://127.0.0.1:{}", 8199 + id),
            raft_addr: format!("127.0.0.1:{}", 8299 + id),
            version: "0.1.0".into(),
            role: Role::Voter,
            live: true,
            draining: false,
        };
        ClusterStatus {
            cluster_id: Some(42),
            generation: 1,
            node_id: NodeId(1),
            control: group.clone(),
            messages: Some(GroupStatus { leader: None, ..group }),
            nodes: (1..=3).map(node).collect(),
        }
    }

    fn readiness(&self) -> Readiness {
        Readiness { checks: self.checks.lock().unwrap().clone() }
    }

    fn quorum_without(&self, node: NodeId) -> Option<QuorumCheck> {
        (1..=3).contains(&node.0).then(|| QuorumCheck { safe: true, reason: "2 of 3 voters remain".into() })
    }

    async fn transfer(&self, group: Group, to: Option<NodeId>, _: Instant) -> Result<NodeId, ClusterError> {
        self.done(format!("transfer {} {to:?}", group.as_str()), to.unwrap_or(NodeId(3)))
    }

    async fn drain(&self, node: NodeId, _: Instant) -> Result<(), ClusterError> {
        self.done(format!("drain {node}"), ())
    }

    async fn undrain(&self, node: NodeId, _: Instant) -> Result<(), ClusterError> {
        self.done(format!("undrain {node}"), ())
    }

    async fn remove(&self, node: NodeId, _: Instant) -> Result<(), ClusterError> {
        self.done(format!("remove {node}"), ())
    }
}

/// Health checks as a test wants them: the same for every service.
#[derive(Default)]
pub struct FakeHealth(pub Mutex<BTreeMap<InstanceId, CheckReport>>);

impl HealthReports for FakeHealth {
    fn reports(&self, _: &ServiceName) -> BTreeMap<InstanceId, CheckReport> {
        self.0.lock().unwrap().clone()
    }
}

/// All fakes of one rig.
pub struct Fakes {
    pub store: Arc<FakeStore>,
    pub cache: Arc<FakeCache>,
    pub control: Arc<FakeControl>,
    pub cluster: Arc<FakeCluster>,
    pub health: Arc<FakeHealth>,
    pub clock: Arc<FakeClock>,
}

impl Default for Fakes {
    fn default() -> Self {
        Self {
            store: Arc::default(),
            cache: Arc::default(),
            control: Arc::default(),
            cluster: Arc::default(),
            health: Arc::default(),
            clock: Arc::new(FakeClock(AtomicI64::new(NOW_MS))),
        }
    }
}
