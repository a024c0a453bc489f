//! The checker over real instances on loopback and a control group in memory.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::Router;
use axum::http::StatusCode;
use hub_core::control::{Command, HealthChange, Reply, State};
use hub_core::id::{InstanceId, NodeId, ServiceName};
use hub_core::port::{
    ClusterControl, ClusterError, ClusterStatus, Committed, Group, GroupStatus, HealthReports, Leadership,
    NodeStatus, ProposeError, QuorumCheck, ReadError, Readiness, Replicator, Role, Submitted,
};
use hub_core::registry::{CheckKind, Health, HealthCheck};
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

/// Applies changes of health to the state that readers watch; the first proposals may be refused.
struct Control {
    state: watch::Sender<State>,
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
        if self.refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(ProposeError::NoLeader);
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
            messages: GroupStatus::default(),
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
}

async fn wait_for_health(state: &mut watch::Receiver<State>, health: Health) {
    let seen = state.wait_for(|state| {
        let service = state.services.values().next().unwrap();
        service.instances.values().all(|instance| instance.health == health)
    });
    assert!(tokio::time::timeout(Duration::from_secs(60), seen).await.unwrap().is_ok());
}

#[tokio::test]
async fn an_instance_that_fails_is_taken_out_and_one_that_recovers_comes_back() {
    let status = Arc::new(AtomicU16::new(500));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answers = Arc::clone(&status);
    let app = Router::new().fallback(move || {
        let code = StatusCode::from_u16(answers.load(Ordering::SeqCst)).unwrap();
        async move { code }
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });

    let mut checked = service("combat", &[&url]);
    checked.health_check = quick();
    let mut state = State::default();
    state.services.insert(checked.name.clone(), Arc::new(checked.clone()));
    let control = Arc::new(Control {
        state: watch::Sender::new(state),
        refuse: AtomicU32::new(1),
        proposals: AtomicU32::new(0),
    });
    let mut view = control.state.subscribe();
    let outbound = outbound::Options::default()
        .build(outbound::tests::with_loopback(), Arc::new(outbound::SystemResolver))
        .unwrap();
    let ports = Ports {
        registry: control.state.subscribe(),
        control: control.clone(),
        cluster: Arc::new(Alone),
        outbound,
        clock: Arc::new(HubClock::default()),
        ids: Arc::new(Ids::new()),
        metrics: prometheus::Registry::new(),
    };
    let (checker, handle) = Options::default().build(ports).unwrap();
    let tokens = Tokens { soft: CancellationToken::new(), hard: CancellationToken::new() };
    tasks.spawn(checker.run(tokens.clone()));

    // The first proposal is refused; the change is told all the same.
    wait_for_health(&mut view, Health::Critical).await;
    assert!(control.proposals.load(Ordering::SeqCst) >= 2);
    let report = handle.reports(&checked.name).into_values().next().unwrap();
    assert_eq!(report.checked_by, Some(ME));
    let last = report.last.unwrap();
    assert_eq!((last.seen, &*last.detail), (Some(Health::Critical), "answered 500"));
    status.store(200, Ordering::SeqCst);
    wait_for_health(&mut view, Health::Passing).await;
    tokens.soft.cancel();
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
