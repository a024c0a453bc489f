//! The checker over real instances on loopback and a control group in memory.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::Router;
use axum::http::StatusCode;
use hub_core::control::{Command, HealthChange, Refusal, Reply, State};
use hub_core::id::{InstanceId, MessageId, NodeId, RequestId, ServiceName};
use hub_core::port::{
    ClusterControl, ClusterError, ClusterStatus, Committed, Group, GroupStatus, HealthReports, IdSource,
    Leadership, NodeStatus, ProposeError, QuorumCheck, ReadError, Readiness, Replicator, Role, Submitted,
};
use hub_core::registry::{CheckKind, Health, HealthCheck};
use hub_core::time::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::schedule::Schedule;
use super::*;
use crate::clock::HubClock;
use crate::ids::Ids;
use crate::lifecycle::Tokens;
use crate::outbound;
use crate::worker::delivery::tests::service;

const ME: NodeId = NodeId(1);

/// Applies changes of health to the state that readers watch; the first proposals fail, or are refused.
struct Control {
    state: watch::Sender<State>,
    fail: AtomicU32,
    refuse: AtomicU32,
    proposals: AtomicU32,
}

#[async_trait]
impl Replicator<Command, Reply> for Control {
    async fn propose(
        &self,
        proposal: Submitted<Command>,
        _deadline: Instant,
    ) -> Result<Committed<Reply>, ProposeError> {
        self.proposals.fetch_add(1, Ordering::SeqCst);
        let take = |left: &AtomicU32| {
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        };
        if take(&self.fail) {
            return Err(ProposeError::NoLeader);
        }
        if take(&self.refuse) {
            return Ok(Committed { index: 1, reply: Reply::Refused(Refusal::RequestTableFull) });
        }
        let Command::SetHealth(changes) = proposal.command else { panic!("only health is proposed") };
        self.state.send_modify(|state| changes.iter().for_each(|change| set(state, change)));
        Ok(Committed { index: 1, reply: Reply::Changed(1) })
    }

    async fn propose_in_term(
        &self,
        _term: u64,
        _proposals: Vec<Submitted<Command>>,
        _deadline: Instant,
    ) -> Result<Vec<Committed<Reply>>, ProposeError> {
        Err(ProposeError::LeadershipMoved)
    }

    async fn read_barrier(&self, _deadline: Instant) -> Result<u64, ReadError> {
        Err(ReadError::NoLeader)
    }

    fn leadership(&self) -> Leadership {
        Leadership::default()
    }

    async fn leadership_changed(&self, _seen: Leadership) -> Leadership {
        std::future::pending().await
    }
}

fn set(state: &mut State, change: &HealthChange) {
    let service = state.services.get_mut(&change.service).unwrap();
    let instance = Arc::make_mut(service).instances.get_mut(&change.instance).unwrap();
    instance.health = change.health;
}

/// A cluster of one live node.
struct Alone;

#[async_trait]
impl ClusterControl for Alone {
    fn node_id(&self) -> NodeId {
        ME
    }

    fn status(&self) -> ClusterStatus {
        let node = NodeStatus {
            id: ME,
            rest_url: String::new(),
            raft_addr: String::new(),
            version: String::new(),
            role: Role::Voter,
            live: true,
            draining: false,
        };
        ClusterStatus {
            cluster_id: Some(1),
            generation: 1,
            node_id: ME,
            control: GroupStatus::default(),
            messages: Some(GroupStatus::default()),
            nodes: vec![node],
        }
    }

    fn readiness(&self) -> Readiness {
        Readiness::default()
    }

    fn quorum_without(&self, _node: NodeId) -> Option<QuorumCheck> {
        None
    }

    async fn transfer(
        &self,
        _group: Group,
        _to: Option<NodeId>,
        _deadline: Instant,
    ) -> Result<NodeId, ClusterError> {
        Err(ClusterError::NoNode)
    }

    async fn drain(&self, _node: NodeId, _deadline: Instant) -> Result<(), ClusterError> {
        Err(ClusterError::NoNode)
    }

    async fn undrain(&self, _node: NodeId, _deadline: Instant) -> Result<(), ClusterError> {
        Err(ClusterError::NoNode)
    }

    async fn remove(&self, _node: NodeId, _deadline: Instant) -> Result<(), ClusterError> {
        Err(ClusterError::NoNode)
    }
}

async fn wait_for_health(state: &mut watch::Receiver<State>, health: Health) {
    let seen = state.wait_for(|state| {
        let service = state.services.values().next().unwrap();
        service.instances.values().all(|instance| instance.health == health)
    });
    assert!(tokio::time::timeout(Duration::from_secs(60), seen).await.unwrap().is_ok());
}

/// Checks fall at once instead of somewhere within their interval.
struct AtOnce(Ids);

impl IdSource for AtOnce {
    fn message_id(&self, now: Timestamp) -> MessageId {
        self.0.message_id(now)
    }

    fn request_id(&self) -> RequestId {
        self.0.request_id()
    }

    fn below(&self, _bound: u64) -> u64 {
        0
    }

    fn secret(&self, bytes: &mut [u8]) {
        self.0.secret(bytes);
    }
}

/// A checker of one instance that answers as it is told.
struct Stage {
    answer: Arc<AtomicU16>,
    control: Arc<Control>,
    view: watch::Receiver<State>,
    handle: Handle,
    name: ServiceName,
    tokens: Tokens,
    _tasks: JoinSet<()>,
}

impl Stage {
    /// The first `fail` proposals fail, the next `refuse` are refused.
    async fn start(check: HealthCheck, fail: u32, refuse: u32) -> Self {
        let answer = Arc::new(AtomicU16::new(500));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = Arc::clone(&answer);
        let app = Router::new().fallback(move || {
            let code = StatusCode::from_u16(answers.load(Ordering::SeqCst)).unwrap();
            async move { code }
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });

        let mut checked = service("combat", &[&url]);
        checked.health_check = check;
        let name = checked.name.clone();
        let mut state = State::default();
        state.services.insert(name.clone(), Arc::new(checked));
        let control = Arc::new(Control {
            state: watch::Sender::new(state),
            fail: AtomicU32::new(fail),
            refuse: AtomicU32::new(refuse),
            proposals: AtomicU32::new(0),
        });
        let outbound = outbound::Options::default()
            .build(outbound::tests::with_loopback(), Arc::new(outbound::SystemResolver))
            .unwrap();
        let ports = Ports {
            registry: control.state.subscribe(),
            control: control.clone(),
            cluster: Arc::new(Alone),
            outbound,
            clock: Arc::new(HubClock::default()),
            ids: Arc::new(AtOnce(Ids::new())),
            metrics: prometheus::Registry::new(),
        };
        let (checker, handle) = Options::default().build(ports).unwrap();
        let tokens = Tokens { soft: CancellationToken::new(), hard: CancellationToken::new() };
        tasks.spawn(checker.run(tokens.clone()));
        let view = control.state.subscribe();
        Self { answer, control, view, handle, name, tokens, _tasks: tasks }
    }
}

#[tokio::test]
async fn an_instance_that_fails_is_taken_out_and_one_that_recovers_comes_back() {
    let mut stage = Stage::start(quick(), 0, 0).await;
    wait_for_health(&mut stage.view, Health::Critical).await;
    let report = stage.handle.reports(&stage.name).into_values().next().unwrap();
    assert_eq!(report.checked_by, Some(ME));
    let last = report.last.unwrap();
    assert_eq!((last.seen, &*last.detail), (Some(Health::Critical), "answered 500"));
    stage.answer.store(200, Ordering::SeqCst);
    wait_for_health(&mut stage.view, Health::Passing).await;
    stage.tokens.soft.cancel();
}

#[tokio::test]
async fn a_change_that_failed_or_was_refused_is_told_again_without_another_check() {
    let rare = HealthCheck { interval_s: 3_600, unhealthy: 1, ..quick() };
    let mut stage = Stage::start(rare, 1, 1).await;
    wait_for_health(&mut stage.view, Health::Critical).await;
    assert_eq!(stage.control.proposals.load(Ordering::SeqCst), 3);
    stage.tokens.soft.cancel();
}

fn quick() -> HealthCheck {
    HealthCheck { kind: CheckKind::Http, interval_s: 1, healthy: 1, unhealthy: 2, ..HealthCheck::default() }
}

fn one(name: &str) -> (State, ServiceName, InstanceId) {
    let mut checked = service(name, &["http://10.0.0.1"]);
    checked.health_check = quick();
    let mut state = State::default();
    let name = checked.name.clone();
    state.services.insert(name.clone(), Arc::new(checked));
    (state, name, "i0".parse().unwrap())
}

#[expect(clippy::disallowed_methods, reason = "any moment will do")]
fn some_moment() -> Instant {
    Instant::now()
}

#[test]
fn only_what_passes_the_threshold_is_told_and_only_until_it_was() {
    let (state, service, instance) = one("combat");
    let live: BTreeSet<NodeId> = [ME].into();
    let now = some_moment();
    let mut schedule = Schedule::default();
    schedule.assign(&state, &live, ME, now, |_| 0);
    let due = schedule.pop(now).unwrap();
    let key = (service, instance);
    assert!(schedule.done(&key, due.round, Some(Health::Critical), now, |_| 0));
    assert!(schedule.changes(10).is_empty(), "one of two");
    assert!(schedule.done(&key, due.round, None, now, |_| 0), "the hub's own fault says nothing");
    assert!(schedule.changes(10).is_empty());
    assert!(schedule.done(&key, due.round, Some(Health::Critical), now, |_| 0));
    let changes = schedule.changes(10);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].health, Health::Critical);
    schedule.told(&changes);
    assert!(schedule.changes(10).is_empty());
}

#[test]
fn checks_follow_the_registry_and_the_live_nodes() {
    let (mut state, service, instance) = one("combat");
    let now = some_moment();
    let key = (service.clone(), instance.clone());
    let mut schedule = Schedule::default();
    schedule.assign(&state, &[ME].into(), ME, now, |_| 0);
    let first = schedule.pop(now).unwrap();
    // It moved while it was checked: the result is for the old address and counts no more.
    let moved = Arc::make_mut(state.services.get_mut(&service).unwrap());
    moved.instances.get_mut(&instance).unwrap().url = "http://10.0.0.2".into();
    schedule.assign(&state, &[ME].into(), ME, now, |_| 0);
    assert!(!schedule.done(&key, first.round, Some(Health::Critical), now, |_| 0));
    assert_eq!(&*schedule.pop(now).unwrap().url, "http://10.0.0.2");
    // Another node is the only live one: nothing is left here.
    schedule.assign(&state, &[NodeId(2)].into(), ME, now, |_| 0);
    assert_eq!((schedule.len(), schedule.next()), (0, None));
}
