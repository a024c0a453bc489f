//! What health checks saw last. Kept in memory by the node that checks; only changes of state are replicated.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::{InstanceId, NodeId, ServiceName};
use crate::registry::Health;
use crate::time::Timestamp;

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    /// When it ended.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: u32,
    /// What it says by itself, before thresholds; `None` if the check failed by the hub's own fault and says nothing.
    pub seen: Option<Health>,
    /// For people: the status code or the failure.
    pub detail: Arc<str>,
}

/// Who checks an instance, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// The node that checks it; `None` while no node does.
    pub checked_by: Option<NodeId>,
    /// The last result, if this node checks it and has done so.
    pub last: Option<CheckResult>,
}

/// The last results of health checks, as this node knows them.
pub trait HealthReports: Send + Sync + 'static {
    /// One report for each instance of `service` that is checked; empty for a service without checks.
    fn reports(&self, service: &ServiceName) -> BTreeMap<InstanceId, CheckReport>;
}
