//! Who checks an instance: the live node with the highest hash of it (rendezvous). When a node comes or goes, only its
//! own instances move. Pure.

use std::collections::BTreeSet;

use hub_core::hash::StableHash;
use hub_core::id::{InstanceId, NodeId, ServiceName};

/// The node among `live` that checks this instance; `None` when there is none.
pub(super) fn checker_of(
    service: &ServiceName,
    instance: &InstanceId,
    live: &BTreeSet<NodeId>,
) -> Option<NodeId> {
    let base = StableHash::default().text(service.as_str()).text(instance.as_str());
    live.iter().copied().max_by_key(|node| (base.number(node.0).finish(), *node))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn spreads_instances_and_moves_only_those_of_a_lost_node() {
        let service: ServiceName = "combat".parse().unwrap();
        let instances: Vec<InstanceId> = (0..300).map(|n| format!("i{n}").parse().unwrap()).collect();
        let before = nodes(&[1, 2, 3]);
        let after = nodes(&[1, 3]);
        let mut shares = [0; 4];
        for instance in &instances {
            let owner = checker_of(&service, instance, &before).unwrap();
            shares[usize::try_from(owner.0).unwrap()] += 1;
            let next = checker_of(&service, instance, &after).unwrap();
            assert!(next == owner || owner == NodeId(2), "{instance} moved without need");
        }
        assert!(shares[1..].iter().all(|share| (60..140).contains(share)), "{shares:?}");
        assert_eq!(checker_of(&service, &instances[0], &nodes(&[])), None);
    }
}
