//! Status, transfer, hand-over and drain over groups that a test sets.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hub_core::control::{Command, Member, Refusal, Reply, State};
use hub_core::id::NodeId;
use hub_core::port::{
    Clock, ClusterControl, ClusterError, Committed, Group, GroupStatus, Leadership, ProposeError, ReadError,
    Replicator, Role, Submitted,
};
use hub_core::time::Timestamp;
use prometheus::Registry;
use tokio::sync::watch;

use super::*;
use crate::clock::HubClock;
use crate::ids::Ids;
use crate::lifecycle::Tasks;

/// A group that moves when it is told to, after it failed so many times.
struct FakeGroup {
    status: Mutex<GroupStatus>,
    failures: Mutex<u32>,
}

impl FakeGroup {
    fn new(leader: u64, voters: &[u64]) -> Arc<Self> {
        let voters = voters.iter().copied().map(NodeId).collect();
        let status = GroupStatus { leader: Some(NodeId(leader)), term: 1, voters, ..GroupStatus::default() };
        Arc::new(Self { status: Mutex::new(status), failures: Mutex::new(0) })
    }

    fn lead(&self, leader: Option<u64>) {
        self.status.lock().unwrap().leader = leader.map(NodeId);
    }
}

#[async_trait]
impl Steered for FakeGroup {
    fn status(&self) -> GroupStatus {
        self.status.lock().unwrap().clone()
    }

    async fn transfer(&self, to: Option<NodeId>, _deadline: Instant) -> Result<NodeId, ClusterError> {
        {
            let mut failures = self.failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return Err(ClusterError::Unfinished("on purpose".to_owned()));
            }
        }
        let mut status = self.status.lock().unwrap();
        let heir = to.or_else(|| status.voters.iter().copied().find(|voter| Some(*voter) != status.leader));
        status.leader = heir;
        Ok(heir.unwrap())
    }
}

/// A control group that applies at once, and whose draining node hands over as a real one would.
struct FakeControl {
    state: watch::Sender<State>,
    groups: Vec<Arc<FakeGroup>>,
}

#[async_trait]
impl Replicator<Command, Reply> for FakeControl {
    async fn propose(
        &self,
        proposal: Submitted<Command>,
        _deadline: Instant,
    ) -> Result<Committed<Reply>, ProposeError> {
        let (node, draining) = match proposal.command {
            Command::SetDraining { node, draining } => (node, draining),
            Command::Remove { node } => {
                self.state.send_modify(|state| drop(state.members.remove(&node)));
                return Ok(Committed { index: 1, reply: Reply::Done });
            }
            _ => unreachable!("only drains and removes"),
        };
        let known = self.state.borrow().members.contains_key(&node);
        if !known {
            return Ok(Committed { index: 1, reply: Reply::Refused(Refusal::NoNode) });
        }
        self.state.send_modify(|state| state.members.get_mut(&node).unwrap().draining = draining);
        for group in self.groups.iter().filter(|_| draining) {
            if group.status().leader == Some(node) {
                group.transfer(None, HubClock::default().instant()).await.unwrap();
            }
        }
        Ok(Committed { index: 1, reply: Reply::Done })
    }

    async fn propose_in_term(
        &self,
        _term: u64,
        _proposals: Vec<Submitted<Command>>,
        _deadline: Instant,
    ) -> Result<Vec<Committed<Reply>>, ProposeError> {
        Err(ProposeError::Stopped)
    }

    async fn read_barrier(&self, _deadline: Instant) -> Result<u64, ReadError> {
        Ok(1)
    }

    fn leadership(&self) -> Leadership {
        Leadership { term: 1, leader: Some(NodeId(1)), ready: true }
    }

    async fn leadership_changed(&self, _seen: Leadership) -> Leadership {
        std::future::pending().await
    }
}

struct Live(BTreeSet<NodeId>);

impl Peers for Live {
    fn live(&self) -> BTreeSet<NodeId> {
        self.0.clone()
    }
}

struct Fixture {
    port: ControlPort,
    control: Arc<FakeGroup>,
    messages: Arc<FakeGroup>,
}

fn member(id: u64) -> Member {
    Member {
        id: NodeId(id),
        incarnation: u128::from(id),
        raft_addr: format!("10.0.0.{id}:8300").into(),
        rest_url: format!("http://10.0.0.{id}:8200").into(),
        version: "1".into(),
        draining: false,
        joined_at: Timestamp::EPOCH,
    }
}

async fn fixture(voters: &[u64], live: &[u64]) -> Fixture {
    fixture_with(voters, live, true).await
}

async fn fixture_with(voters: &[u64], live: &[u64], embedded: bool) -> Fixture {
    let (control, messages) = (FakeGroup::new(1, voters), FakeGroup::new(2, voters));
    let mut state = State::default();
    for id in voters {
        state.members.insert(NodeId(*id), member(*id));
    }
    let (state, view) = watch::channel(state);
    let clock = Arc::new(HubClock::default());
    let groups = vec![control.clone(), messages.clone()];
    let proposals: Arc<dyn Replicator<Command, Reply>> = Arc::new(FakeControl { state, groups });
    let as_port: Arc<dyn Clock> = clock.clone();
    let tasks = Tasks::new(as_port.clone(), &Registry::new()).unwrap();
    let followed = [Group::Control, Group::Messages].map(|group| follow(group, &proposals, &as_port, &tasks));
    for one in &followed {
        tokio::time::timeout(Duration::from_secs(30), one.wait_caught_up()).await.unwrap();
    }
    let [first, second] = followed;
    let port = ControlPort::new(Parts {
        node: NodeId(1),
        generation: 1,
        state: view,
        proposals,
        groups: LedGroups {
            control: Led { group: Group::Control, steered: control.clone(), followed: first },
            messages: embedded.then(|| Led {
                group: Group::Messages,
                steered: messages.clone(),
                followed: second,
            }),
        },
        peers: Arc::new(Live(live.iter().copied().map(NodeId).collect())),
        clock,
        ids: Arc::new(Ids::new()),
        store: Arc::new(Vec::new),
    });
    Fixture { port, control, messages }
}

fn soon() -> Instant {
    HubClock::default().instant() + Duration::from_secs(30)
}

#[tokio::test]
async fn shows_nodes_with_role_and_life() {
    let fixture = fixture(&[1, 2, 3], &[2]).await;
    let status = fixture.port.status();
    assert_eq!(status.nodes.iter().map(|node| node.live).collect::<Vec<_>>(), [true, true, false]);
    assert!(status.nodes.iter().all(|node| node.role == Role::Voter));
    assert!(!fixture.port.quorum_without(NodeId(2)).unwrap().safe);
    assert!(fixture.port.quorum_without(NodeId(3)).unwrap().safe);
}

#[tokio::test]
async fn a_stopping_node_is_not_ready() {
    let fixture = fixture(&[1], &[]).await;
    assert!(fixture.port.readiness().is_ready(), "{:?}", fixture.port.readiness());
    fixture.port.stop_taking();
    assert!(!fixture.port.readiness().is_ready());
}

#[tokio::test]
async fn transfers_where_it_can_be() {
    let fixture = fixture(&[1, 2, 3], &[2, 3]).await;
    let port = &fixture.port;
    assert_eq!(port.transfer(Group::Control, Some(NodeId(3)), soon()).await, Ok(NodeId(3)));
    assert_eq!(port.transfer(Group::Control, Some(NodeId(3)), soon()).await, Ok(NodeId(3)));
    assert_eq!(port.transfer(Group::Control, Some(NodeId(9)), soon()).await, Err(ClusterError::NoNode));
    assert_eq!(port.transfer(Group::Messages, None, soon()).await, Ok(NodeId(1)));
}

#[tokio::test]
async fn a_drained_node_leads_nothing_and_is_not_ready_until_the_end_of_the_drain() {
    let fixture = fixture(&[1, 2, 3], &[2, 3]).await;
    fixture.port.drain(NodeId(1), soon()).await.unwrap();
    assert_ne!(fixture.control.status().leader, Some(NodeId(1)));
    assert_ne!(fixture.messages.status().leader, Some(NodeId(1)));
    assert!(!fixture.port.readiness().is_ready());
    fixture.port.undrain(NodeId(1), soon()).await.unwrap();
    assert!(fixture.port.readiness().is_ready());
    assert_eq!(fixture.port.drain(NodeId(9), soon()).await, Err(ClusterError::NoNode));
}

#[tokio::test]
async fn without_a_group_of_messages_only_control_counts() {
    let fixture = fixture_with(&[1, 2, 3], &[2, 3], false).await;
    let port = &fixture.port;
    assert_eq!(port.status().messages, None);
    assert!(port.readiness().checks.iter().all(|check| check.name != "messages"));
    let refused = port.transfer(Group::Messages, None, soon()).await;
    assert_eq!(refused, Err(ClusterError::NoGroup(Group::Messages)));
    assert!(!port.quorum_without(NodeId(1)).unwrap().reason.contains("messages"));
    port.drain(NodeId(1), soon()).await.unwrap();
    port.remove(NodeId(3), soon()).await.unwrap();
}

#[tokio::test]
async fn what_would_cost_the_leadership_for_good_is_refused() {
    let lone = fixture(&[1], &[]).await;
    assert!(matches!(lone.port.drain(NodeId(1), soon()).await, Err(ClusterError::Unsafe(_))));
    let transfer = lone.port.transfer(Group::Control, None, soon()).await;
    assert!(matches!(transfer, Err(ClusterError::Unsafe(_))));
    let others_dead = fixture(&[1, 2, 3], &[]).await;
    assert!(matches!(others_dead.port.drain(NodeId(1), soon()).await, Err(ClusterError::Unsafe(_))));
}

#[tokio::test]
async fn a_leader_that_has_lost_its_majority_for_a_moment_hands_over_before_it_goes() {
    let clock = HubClock::default();
    let unknown = |voters: &[u64]| {
        let group = FakeGroup::new(1, voters);
        group.lead(None);
        group
    };
    // It finds its majority again, or another is elected.
    for (comes_back, heir) in [(1, 2), (3, 3)] {
        let group = unknown(&[1, 2, 3]);
        let back = async {
            tokio::task::yield_now().await;
            group.lead(Some(comes_back));
        };
        let (handed, ()) =
            tokio::join!(hand_over("control", &*group, NodeId(1), &|_| true, &clock, soon()), back);
        assert!(handed);
        assert_eq!(group.status().leader, Some(NodeId(heir)));
    }
    // Nothing to wait for: the node does not vote, or too few are live for any leader.
    for (voters, live) in
        [(&[2, 3][..], &[2, 3][..]), (&[1], &[]), (&[1, 2, 3], &[]), (&[1, 2, 3, 4, 5], &[2])]
    {
        let group = unknown(voters);
        let is_live = |voter: NodeId| live.contains(&voter.0);
        assert!(
            hand_over("control", &*group, NodeId(1), &is_live, &clock, soon()).await,
            "{voters:?} {live:?}"
        );
    }
    let passed = clock.instant() + Duration::from_millis(100);
    let group = unknown(&[1, 2, 3]);
    assert!(!hand_over("control", &*group, NodeId(1), &|_| true, &clock, passed).await);
}

#[tokio::test]
async fn a_drain_does_not_end_while_nobody_is_known_to_lead() {
    let fixture = fixture(&[1, 2, 3], &[2, 3]).await;
    fixture.messages.lead(None);
    let passed = HubClock::default().instant() + Duration::from_millis(200);
    let drained = fixture.port.drain(NodeId(1), passed).await;
    assert!(matches!(drained, Err(ClusterError::Unfinished(_))), "{drained:?}");
    fixture.messages.lead(Some(3));
    assert_eq!(fixture.port.drain(NodeId(1), soon()).await, Ok(()));
}

#[tokio::test]
async fn a_hand_over_is_tried_again_until_it_happened() {
    let clock = HubClock::default();
    let group = FakeGroup::new(1, &[1, 2]);
    *group.failures.lock().unwrap() = 2;
    assert!(hand_over("control", &*group, NodeId(1), &|_| true, &clock, soon()).await);
    assert_eq!(group.status().leader, Some(NodeId(2)));

    let lone = FakeGroup::new(1, &[1]);
    assert!(!hand_over("control", &*lone, NodeId(1), &|_| true, &clock, soon()).await);
    let left_alone = FakeGroup::new(1, &[1, 2]);
    assert!(!hand_over("control", &*left_alone, NodeId(1), &|_| false, &clock, soon()).await);
    let stuck = FakeGroup::new(1, &[1, 2]);
    *stuck.failures.lock().unwrap() = u32::MAX;
    let passed = clock.instant() + Duration::from_millis(100);
    assert!(!hand_over("control", &*stuck, NodeId(1), &|_| true, &clock, passed).await);
}
