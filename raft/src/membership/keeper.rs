//! Keeps both groups' membership as the control state wants it, on whichever node leads each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hub_core::control::{Machine, State};
use hub_core::port::StateMachine;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{ChangeMembers, Instant as _};

use super::admitter::{Admitter, ControlGroup};
use super::plan::{Change, Facts, next};
use crate::group::Group;
use crate::network::Transport;
use crate::state_machine::View;
use crate::type_config::NodeAddr;

/// How often the leader looks.
const LOOK: Duration = Duration::from_millis(200);
/// One change may take this long.
const CHANGE: Duration = Duration::from_secs(10);
/// So few entries behind counts as caught up.
const BEHIND: u64 = 64;
/// Who has not answered for this long is not counted as caught up.
const SILENT: Duration = Duration::from_secs(1);

/// How the membership is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeeperOptions {
    /// The second node becomes a voter at once.
    pub two_nodes: bool,
}

/// Keeps the membership of both groups.
pub struct Keeper<M: StateMachine> {
    options: KeeperOptions,
    transport: Transport,
    control: ControlGroup,
    messages: Group<M>,
    view: View<Machine>,
    /// Who was caught up when the leader looked last: once is not enough.
    before: [BTreeSet<u64>; 2],
}

impl KeeperOptions {
    /// From now on nodes are let in; the keeper that is returned is to be run.
    #[must_use]
    pub fn build<M: StateMachine>(
        self,
        transport: &Transport,
        control: &ControlGroup,
        messages: &Group<M>,
        view: &View<Machine>,
    ) -> Keeper<M> {
        let admitter = Admitter { control: control.clone(), view: view.clone() };
        if transport.inner.admit_by(Arc::new(admitter)).is_err() {
            tracing::error!("nodes are let in twice");
        }
        Keeper {
            options: self,
            transport: transport.clone(),
            control: control.clone(),
            messages: messages.clone(),
            view: view.clone(),
            before: Default::default(),
        }
    }
}

impl<M: StateMachine> Keeper<M> {
    /// Runs for ever.
    pub async fn run(mut self) {
        loop {
            let state = self.view.view();
            self.note_addresses(&state);
            let control = self.control.status();
            if let Some(facts) = facts(&self.control, &state, &mut self.before[0]) {
                let wanted = facts.members.keys().copied().collect();
                let facts = Facts { wanted, two_nodes: self.options.two_nodes, ..facts };
                change(&self.control, next(&facts)).await;
            }
            if let Some(facts) = facts(&self.messages, &state, &mut self.before[1]) {
                // The same voters as `control`, so two of them are two there already.
                let wanted: BTreeSet<u64> = control.voters.iter().map(|node| node.0).collect();
                let two_nodes = wanted.len() == 2;
                change(&self.messages, next(&Facts { wanted, two_nodes, ..facts })).await;
            }
            tokio::select! {
                alive = self.view.changed() => if !alive { return },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn note_addresses(&self, state: &State) {
        for member in state.members.values().filter(|member| member.id != self.transport.node()) {
            self.transport.set_address(member.id, &member.raft_addr);
        }
    }
}

/// What the leader of the group knows; `None` elsewhere.
fn facts<M: StateMachine>(group: &Group<M>, state: &State, before: &mut BTreeSet<u64>) -> Option<Facts> {
    group.core.leading()?;
    let metrics = group.core.raft.metrics();
    let metrics = metrics.borrow_watched();
    // A change that is not committed yet must not be followed by another.
    if metrics.membership_config != metrics.committed_membership_config {
        return None;
    }
    let last = metrics.last_log_index.unwrap_or(0);
    let answers = |id: &u64| {
        let heard = metrics.heartbeat.as_ref().and_then(|heard| heard.get(id).copied().flatten());
        heard.is_some_and(|at| at.elapsed() < SILENT)
    };
    let replication = metrics.replication.iter().flatten();
    let now: BTreeSet<u64> = replication
        .filter(|(_, matched)| matched.as_ref().is_some_and(|matched| matched.index() + BEHIND >= last))
        .map(|(id, _)| *id)
        .filter(|id| *id == metrics.id || answers(id))
        .collect();
    let caught_up = now.intersection(before).copied().chain([metrics.id]).collect();
    *before = now;
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
