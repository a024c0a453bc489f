//! Whether a node can be stopped without the cluster losing its majority.

use std::collections::BTreeSet;

use hub_core::id::NodeId;
use hub_core::port::{ClusterStatus, QuorumCheck};

/// Voters of one group.
struct Votes {
    /// How many there are.
    all: usize,
    /// How many of them are live.
    live: usize,
    /// How many of those are left without the node.
    left: usize,
}

/// Whether a node can stop; `None` if there is no such node.
#[must_use]
pub fn without(status: &ClusterStatus, node: NodeId) -> Option<QuorumCheck> {
    judge(status, node, |Votes { all, left, .. }| {
        let needed = all / 2 + 1;
        let reason = format!("{all} voters, {left} live without node {node}, {needed} needed");
        QuorumCheck { safe: all > 0 && left >= needed, reason }
    })
}

/// Whether a node can be removed for good: those that are left must be able to decide it, and to go on after it. `None` if
/// there is no such node.
#[must_use]
pub fn removal(status: &ClusterStatus, node: NodeId) -> Option<QuorumCheck> {
    judge(status, node, |Votes { all, live, left }| {
        let needed = all.saturating_sub(1) / 2 + 1;
        let reason = format!("{live} of {all} voters live; without node {node} {left}, {needed} needed");
        QuorumCheck { safe: live > all / 2 && left >= needed, reason }
    })
}

/// Judges the votes of each group in which the node has one.
fn judge(status: &ClusterStatus, node: NodeId, rule: impl Fn(Votes) -> QuorumCheck) -> Option<QuorumCheck> {
    status.nodes.iter().find(|known| known.id == node)?;
    let live: BTreeSet<NodeId> =
        status.nodes.iter().filter(|known| known.live).map(|known| known.id).collect();
    let checks: Vec<QuorumCheck> = status
        .groups()
        .map(|(group, state)| {
            let voters = &state.voters;
            let check = if voters.is_empty() || voters.contains(&node) {
                let live = voters.iter().filter(|voter| live.contains(voter));
                let left = live.clone().filter(|voter| **voter != node).count();
                rule(Votes { all: voters.len(), live: live.count(), left })
            } else {
                QuorumCheck { safe: true, reason: format!("node {node} does not vote") }
            };
            QuorumCheck { reason: format!("{}: {}", group.as_str(), check.reason), ..check }
        })
        .collect();
    let safe = checks.iter().all(|check| check.safe);
    let reasons: Vec<String> = checks.into_iter().map(|check| check.reason).collect();
    Some(QuorumCheck { safe, reason: reasons.join("; ") })
}

#[cfg(test)]
mod tests {
    use hub_core::port::{GroupStatus, NodeStatus, Role};

    use super::*;

    fn status(voters: &[u64], live: &[u64], learners: &[u64]) -> ClusterStatus {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
        let group = GroupStatus { voters: ids(voters), learners: ids(learners), ..GroupStatus::default() };
        let node = |id: &u64| NodeStatus {
            id: NodeId(*id),
            rest_url: String::new(),
            raft_addr: String::new(),
            version: String::new(),
            role: if voters.contains(id) { Role::Voter } else { Role::Learner },
            live: live.contains(id),
            draining: false,
        };
        ClusterStatus {
            cluster_id: Some(1),
            generation: 1,
            node_id: NodeId(1),
            control: group.clone(),
            messages: Some(group),
            nodes: voters.iter().chain(learners).map(node).collect(),
        }
    }

    #[test]
    fn counts_what_is_left() {
        for (voters, live, safe) in [
            (&[1, 2, 3][..], &[1, 2, 3][..], true),
            (&[1, 2, 3], &[1, 2], false),
            (&[1, 2, 3], &[1, 3], true),
            (&[1, 2], &[1, 2], false),
            (&[2], &[2], false),
            (&[1, 2, 3, 4, 5], &[1, 2, 3, 4], true),
            (&[1, 2, 3, 4, 5], &[1, 2, 3], false),
        ] {
            let check = without(&status(voters, live, &[]), NodeId(2)).unwrap();
            assert_eq!(check.safe, safe, "{voters:?} {live:?}: {}", check.reason);
        }
    }

    #[test]
    fn a_node_is_removed_only_while_a_majority_decides_it_and_one_is_left() {
        for (voters, live, safe) in [
            (&[1, 2, 3][..], &[1, 2, 3][..], true),
            (&[1, 2, 3], &[1, 3], true),
            (&[1, 2, 3], &[1, 2], false),
            (&[1, 2], &[1, 2], true),
            (&[1, 2], &[1], false),
            (&[2], &[2], false),
        ] {
            let check = removal(&status(voters, live, &[]), NodeId(2)).unwrap();
            assert_eq!(check.safe, safe, "{voters:?} {live:?}: {}", check.reason);
        }
        assert!(removal(&status(&[1], &[1], &[2]), NodeId(2)).unwrap().safe);
    }

    #[test]
    fn a_learner_can_always_stop_and_a_stranger_is_not_known() {
        let status = status(&[1], &[1, 2], &[2]);
        assert!(without(&status, NodeId(2)).unwrap().safe);
        assert!(without(&status, NodeId(3)).is_none());
    }
}
