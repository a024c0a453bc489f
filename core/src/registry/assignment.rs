//! Who checks an instance: the live node with the highest hash of it (rendezvous). When a node comes or goes, only its
//! own instances move.

use std::collections::BTreeSet;

use crate::hash::StableHash;
use crate::id::{InstanceId, NodeId, ServiceName};

/// The node among `live` that checks this instance; `None` when there is none.
#[must_use]
pub fn checker_of(service: &ServiceName, instance: &InstanceId, live: &BTreeSet<NodeId>) -> Option<NodeId> {
    let base = StableHash::default().text(service.as_str()).text(instance.as_str());
    live.iter().copied().max_by_key(|node| (base.number(node.0).finish(), *node))
}
