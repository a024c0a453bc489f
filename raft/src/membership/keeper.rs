//! Keeps the membership of all groups as the control state wants it, on whichever node leads each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hub_core::control::{Command, Machine, State};
use hub_core::id::{NodeId, RequestId};
use hub_core::port::{Replicator, StateMachine, Submitted};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{ChangeMembers, Instant as _};
use uuid::Uuid;

use super::admitter::{Admitter, ControlGroup};
use super::plan::{Change, Facts, Steady, better_without, next};
use crate::group::Group;
use crate::network::Transport;
use crate::state_machine::View;
use crate::type_config::{Metrics, NodeAddr};

/// How often the leader looks.
const LOOK: Duration = Duration::from_millis(200);
/// One change may take this long.
const CHANGE: Duration = Duration::from_secs(10);
/// So few entries behind counts as caught up.
const BEHIND: u64 = 64;
/// Who has not answered for this long is not counted as caught up.
const SILENT: Duration = Duration::from_secs(1);

/// How the membership is kept.
#[derive(Clone, Copy, Debug)]
pub struct KeeperOptions {
    /// The second node becomes a voter at once.
    pub two_nodes: bool,
    /// A voter that is silent for this long is removed if the cluster can bear more failures without it: in practice, once
    /// another node votes in its place. Zero: never.
    pub remove_dead_after: Duration,
}

impl Default for KeeperOptions {
    fn default() -> Self {
        Self { two_nodes: false, remove_dead_after: Duration::from_secs(600) }
    }
}

/// Keeps the membership of `control`, and of `messages` where there is such a group.
pub struct Keeper<M: StateMachine> {
    options: KeeperOptions,
    transport: Transport,
    control: ControlGroup,
    messages: Option<Group<M>>,
    view: View<Machine>,
    /// Who is caught up in `control` and in `messages`.
    steady: [Steady; 2],
    /// Since when the leader of `control` has heard nothing of a voter.
    silent: BTreeMap<u64, Instant>,
}

impl KeeperOptions {
    /// From now on nodes are let in; the keeper that is returned is to be run.
    #[must_use]
    pub fn build<M: StateMachine>(
        self,
        transport: &Transport,
        control: &ControlGroup,
        messages: Option<&Group<M>>,
        view: &View<Machine>,
    ) -> Keeper<M> {
        let admitter =
            Admitter { control: control.clone(), view: view.clone(), database: messages.is_none() };
        if transport.inner.admit_by(Arc::new(admitter)).is_err() {
            tracing::error!("nodes are let in twice");
        }
        Keeper {
            options: self,
            transport: transport.clone(),
            control: control.clone(),
            messages: messages.cloned(),
            view: view.clone(),
            steady: Default::default(),
            silent: BTreeMap::new(),
        }
    }
}

impl<M: StateMachine> Keeper<M> {
    /// Runs for ever.
    pub async fn run(mut self) {
        loop {
            self.look().await;
            tokio::select! {
                alive = self.view.changed() => if !alive { return },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn look(&mut self) {
        let state = self.view.view();
        self.note_members(&state);
        let [control, messages] = &mut self.steady;
        let steady = [
            control.look(caught_up(&self.control)),
            messages.look(self.messages.as_ref().map(caught_up).unwrap_or_default()),
        ];
        let [control, messages] = self.next(&state, &steady);
        self.bury(&state).await;
        if control.is_none() && messages.is_none() {
            return;
        }
        // What this node knows of the members may be old, above all where it leads only `messages`.
        let deadline = self.transport.inner.clock.instant() + CHANGE;
        if self.control.read_barrier(deadline).await.is_err() {
            return;
        }
        let [control, messages] = self.next(&self.view.view(), &steady);
        change(&self.control, control).await;
        if let Some(group) = &self.messages {
            change(group, messages).await;
        }
    }

    /// The next change of each group that is led here, with those who were `steady` when this look began.
    fn next(&self, state: &State, steady: &[BTreeSet<u64>; 2]) -> [Option<Change>; 2] {
        let [steady_control, steady_messages] = steady;
        let control = facts(&self.control, state, steady_control).and_then(|facts| {
            let wanted = facts.members.keys().copied().collect();
            next(&Facts { wanted, two_nodes: self.options.two_nodes, ..facts })
        });
        let messages = self.messages.as_ref().and_then(|group| {
            let facts = facts(group, state, steady_messages)?;
            // The same voters as `control`, so two of them are two there already.
            let wanted: BTreeSet<u64> = self.control.status().voters.iter().map(|node| node.0).collect();
            let two_nodes = wanted.len() == 2;
            next(&Facts { wanted, two_nodes, ..facts })
        });
        [control, messages]
    }

    /// Removes voters that have long been dead, if the cluster is better off without them.
    async fn bury(&mut self, state: &State) {
        let Some((voters, answering)) = self.voters() else {
            self.silent.clear();
            return;
        };
        let now = self.transport.inner.clock.instant();
        self.silent.retain(|node, _| voters.contains(node) && !answering.contains(node));
        for node in voters.difference(&answering) {
            self.silent.entry(*node).or_insert(now);
        }
        let after = self.options.remove_dead_after;
        let long = |since: &Instant| now.saturating_duration_since(*since) >= after;
        let dead: BTreeSet<u64> =
            self.silent.iter().filter(|(_, since)| long(since)).map(|(node, _)| *node).collect();
        if after.is_zero() || !better_without(&voters, &answering, &dead) {
            return;
        }
        for node in dead.into_iter().map(NodeId).filter(|node| state.members.contains_key(node)) {
            // A repeat finds nothing to remove, so it needs no request id.
            let command = Command::Remove { node };
            let proposal = Submitted { request: RequestId(Uuid::nil()), command };
            match self.control.propose(proposal, now + CHANGE).await {
                Ok(_) => tracing::warn!(%node, silent_for = ?after, "dead node was removed for good"),
                Err(error) => tracing::debug!(%node, %error, "dead node was not removed"),
            }
        }
    }

    /// The voters of `control` and those of them that answer, this node among them; `None` where it is not led.
    fn voters(&self) -> Option<(BTreeSet<u64>, BTreeSet<u64>)> {
        self.control.core.leading()?;
        let metrics = self.control.core.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters: BTreeSet<u64> = metrics.membership_config.membership().voter_ids().collect();
        let answering = voters.iter().copied().filter(|id| *id == metrics.id || answers(&metrics, *id));
        let answering = answering.collect();
        Some((voters, answering))
    }

    fn note_members(&self, state: &State) {
        for member in state.members.values().filter(|member| member.id != self.transport.node()) {
            self.transport.set_address(member.id, &member.raft_addr);
        }
        // Who is removed takes part until it has left all groups.
        let mut known: BTreeSet<NodeId> = state.members.keys().copied().collect();
        let messages = self.messages.as_ref().map(Group::status);
        for status in std::iter::once(self.control.status()).chain(messages) {
            known.extend(status.voters.into_iter().chain(status.learners));
        }
        self.transport.inner.admit_only(state.last_node, known);
    }
}

fn answers(metrics: &Metrics, node: u64) -> bool {
    let heard = metrics.heartbeat.as_ref().and_then(|heard| heard.get(&node).copied().flatten());
    heard.is_some_and(|at| at.elapsed() < SILENT)
}

/// Whose log reaches to the end, and who answers, as the leader finds now; nobody elsewhere.
fn caught_up<M: StateMachine>(group: &Group<M>) -> BTreeSet<u64> {
    if group.core.leading().is_none() {
        return BTreeSet::new();
    }
    let metrics = group.core.raft.metrics();
    let metrics = metrics.borrow_watched();
    let last = metrics.last_log_index.unwrap_or(0);
    let replication = metrics.replication.iter().flatten();
    replication
        .filter(|(_, matched)| matched.as_ref().is_some_and(|matched| matched.index() + BEHIND >= last))
        .map(|(id, _)| *id)
        .filter(|id| *id == metrics.id || answers(&metrics, *id))
        .collect()
}

/// What the leader of the group knows; `None` elsewhere.
fn facts<M: StateMachine>(group: &Group<M>, state: &State, steady: &BTreeSet<u64>) -> Option<Facts> {
    group.core.leading()?;
    let now = caught_up(group);
    let metrics = group.core.raft.metrics();
    let metrics = metrics.borrow_watched();
    // A change that is not committed yet must not be followed by another.
    if metrics.membership_config != metrics.committed_membership_config {
        return None;
    }
    // What answered a moment ago may not do so any more.
    let caught_up = steady.intersection(&now).copied().chain([metrics.id]).collect();
    let membership = metrics.membership_config.membership();
    let members = state.members.values().map(|member| (member.id.0, member.raft_addr.to_string()));
    Some(Facts {
        members: members.collect(),
        nodes: membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
        voters: membership.voter_ids().collect(),
        caught_up,
        ..Facts::default()
    })
}

async fn change<M: StateMachine>(group: &Group<M>, change: Option<Change>) {
    let Some(change) = change else { return };
    let one = |id: u64, addr: &String| BTreeMap::from([(id, NodeAddr { addr: addr.clone() })]);
    let members = match &change {
        Change::Add(id, addr) => ChangeMembers::AddNodes(one(*id, addr)),
        Change::Readdress(id, addr) => ChangeMembers::SetNodes(one(*id, addr)),
        Change::Voters(voters) => ChangeMembers::ReplaceAllVoters(voters.clone()),
        Change::Remove(id) => ChangeMembers::RemoveNodes(BTreeSet::from([*id])),
    };
    let name = &group.core.options.name;
    let asked = group.core.raft.change_membership(members, true);
    match tokio::time::timeout(CHANGE, asked).await {
        Ok(Ok(_)) => tracing::info!(group = %name, ?change, "membership changed"),
        Ok(Err(error)) => tracing::debug!(group = %name, ?change, %error, "membership did not change"),
        Err(_) => tracing::warn!(group = %name, ?change, "membership did not change in time"),
    }
}
