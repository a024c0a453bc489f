//! The state of the control group. Readers hold a clone: the maps are persistent, so a clone is cheap and consistent.

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::Member;
use crate::breaker::{Config, Record};
use crate::id::{NodeId, ServiceName};
use crate::registry::Service;
use crate::time::Timestamp;

/// Members, services and breakers at one log index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The cluster's id; `None` before it is founded.
    pub cluster: Option<u128>,
    /// The newest time any entry carried: it never steps back.
    pub clock: Timestamp,
    /// Log index of the last applied entry: the revision of reads.
    pub revision: u64,
    /// The highest node id ever given: a removed node's id is not given again.
    pub last_node: NodeId,
    /// The nodes.
    pub members: OrdMap<NodeId, Member>,
    /// The registry.
    pub services: OrdMap<ServiceName, Arc<Service>>,
    /// Breakers to which something happened; the others are closed.
    pub breakers: OrdMap<ServiceName, Arc<Record>>,
    /// The settings of breakers without their own.
    pub breaker_defaults: Config,
}
