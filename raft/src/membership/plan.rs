//! The next change of a group's membership, out of plain facts. One change at a time.

use std::collections::{BTreeMap, BTreeSet};

/// What is known on the leader of the group.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// The nodes that belong to the cluster, with their addresses.
    pub(super) members: BTreeMap<u64, String>,
    /// The nodes in the group, with the addresses noted there.
    pub(super) nodes: BTreeMap<u64, String>,
    /// Those of them that vote.
    pub(super) voters: BTreeSet<u64>,
    /// Those that answer, and whose log reaches to the end.
    pub(super) caught_up: BTreeSet<u64>,
    /// Those that shall vote as soon as they are caught up.
    pub(super) wanted: BTreeSet<u64>,
    /// Two voters are fine: the cluster then stops when either stops.
    pub(super) two_nodes: bool,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A node begins to follow.
    Add(u64, String),
    /// A node has another address.
    Readdress(u64, String),
    /// The voters are these from now on.
    Voters(BTreeSet<u64>),
    /// A node that does not vote leaves.
    Remove(u64),
}

/// Who is caught up, from one look of the leader to the next: once is not enough.
#[derive(Debug, Default)]
pub(super) struct Steady {
    last: BTreeSet<u64>,
}

impl Steady {
    /// Who was found caught up by this look and by the one before it. To be called once in a look, also where this node does
    /// not lead: what an earlier leadership found does not count.
    pub(super) fn look(&mut self, found: BTreeSet<u64>) -> BTreeSet<u64> {
        let twice = found.intersection(&self.last).copied().collect();
        self.last = found;
        twice
    }
}

/// The next change, if there is one to make.
pub(super) fn next(facts: &Facts) -> Option<Change> {
    for (id, address) in &facts.members {
        match facts.nodes.get(id) {
            None => return Some(Change::Add(*id, address.clone())),
            Some(known) if known != address => return Some(Change::Readdress(*id, address.clone())),
            Some(_) => {}
        }
    }
    let stay = facts.voters.intersection(&facts.wanted);
    let come = facts.wanted.iter().filter(|id| facts.nodes.contains_key(id) && facts.caught_up.contains(id));
    let voters: BTreeSet<u64> = stay.chain(come).copied().collect();
    // Two voters survive nothing that one does not; the second waits for a third, unless only two are left.
    let premature = voters.len() == 2 && facts.voters.len() < 2 && !facts.two_nodes;
    if voters != facts.voters && !voters.is_empty() && !premature {
        return Some(Change::Voters(voters));
    }
    let gone = facts.nodes.keys().find(|id| !facts.members.contains_key(id) && !facts.voters.contains(id));
    gone.map(|id| Change::Remove(*id))
}

/// Whether the cluster can bear more failures without its dead voters, and can still decide to remove them.
pub(super) fn better_without(voters: &BTreeSet<u64>, live: &BTreeSet<u64>, dead: &BTreeSet<u64>) -> bool {
    let left = voters.difference(dead).count();
    live.len() > voters.len() / 2 && left / 2 < voters.len() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(id: u64) -> String {
        format!("127.0.0.1:{id}")
    }

    fn facts(members: &[u64], nodes: &[u64], voters: &[u64], caught_up: &[u64]) -> Facts {
        let named = |ids: &[u64]| ids.iter().map(|id| (*id, address(*id))).collect();
        Facts {
            members: named(members),
            nodes: named(nodes),
            voters: voters.iter().copied().collect(),
            caught_up: caught_up.iter().copied().collect(),
            wanted: members.iter().copied().collect(),
            two_nodes: false,
        }
    }

    fn voters(ids: &[u64]) -> Option<Change> {
        Some(Change::Voters(ids.iter().copied().collect()))
    }

    #[test]
    fn a_new_member_follows_first() {
        assert_eq!(next(&facts(&[1, 2], &[1], &[1], &[1])), Some(Change::Add(2, address(2))));
        assert_eq!(next(&facts(&[1, 2], &[1, 2], &[1], &[1])), None, "it is not caught up");
    }

    #[test]
    fn the_second_waits_for_the_third_and_both_vote_at_once() {
        assert_eq!(next(&facts(&[1, 2], &[1, 2], &[1], &[1, 2])), None);
        assert_eq!(next(&facts(&[1, 2, 3], &[1, 2, 3], &[1], &[1, 2])), None);
        assert_eq!(next(&facts(&[1, 2, 3], &[1, 2, 3], &[1], &[1, 2, 3])), voters(&[1, 2, 3]));
        let two = Facts { two_nodes: true, ..facts(&[1, 2], &[1, 2], &[1], &[1, 2]) };
        assert_eq!(next(&two), voters(&[1, 2]));
    }

    #[test]
    fn a_voter_that_is_down_stays_a_voter() {
        assert_eq!(next(&facts(&[1, 2, 3], &[1, 2, 3], &[1, 2, 3], &[1, 2])), None);
    }

    #[test]
    fn a_removed_member_votes_no_more_and_then_leaves() {
        assert_eq!(next(&facts(&[1, 2], &[1, 2, 3], &[1, 2, 3], &[1, 2, 3])), voters(&[1, 2]));
        assert_eq!(next(&facts(&[1, 2], &[1, 2, 3], &[1, 2], &[1, 2])), Some(Change::Remove(3)));
    }

    #[test]
    fn only_who_is_caught_up_in_two_looks_running_is() {
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
        let mut steady = Steady::default();
        assert_eq!(steady.look(set(&[1, 2])), set(&[]));
        assert_eq!(steady.look(set(&[2, 3])), set(&[2]));
        assert_eq!(steady.look(set(&[])), set(&[]));
        assert_eq!(steady.look(set(&[2, 3])), set(&[]));
        assert_eq!(steady.look(set(&[2, 3])), set(&[2, 3]));
    }

    #[test]
    fn a_new_address_is_noted() {
        let mut moved = facts(&[1, 2], &[1, 2], &[1, 2], &[1, 2]);
        moved.members.insert(2, "127.0.0.1:99".to_owned());
        assert_eq!(next(&moved), Some(Change::Readdress(2, "127.0.0.1:99".to_owned())));
    }

    #[test]
    fn the_dead_go_when_that_makes_the_cluster_safer() {
        let better = |voters: u64, dead: &[u64]| {
            let (voters, dead): (BTreeSet<u64>, BTreeSet<u64>) =
                ((1..=voters).collect(), dead.iter().copied().collect());
            better_without(&voters, &voters.difference(&dead).copied().collect(), &dead)
        };
        assert!(!better(3, &[]));
        assert!(!better(3, &[3]), "two voters bear no failure either, and the third may come back");
        assert!(better(4, &[4]), "its successor votes");
        assert!(!better(5, &[5]));
        assert!(better(5, &[4, 5]));
        assert!(!better(4, &[3, 4]), "there is no majority");
        assert!(!better(2, &[2]));
    }
}
