//! The last results, for who asks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hub_core::id::{InstanceId, NodeId, ServiceName};
use hub_core::port::{CheckReport, CheckResult, HealthReports};
use hub_core::registry::{CheckKind, checker_of};

use crate::worker::delivery::Registry;

/// One checked instance.
pub(super) type Key = (ServiceName, InstanceId);

/// Shows who checks what, and the last results of this node's checks. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

struct Shared {
    registry: Registry,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    live: BTreeSet<NodeId>,
    results: HashMap<Key, CheckResult>,
}

impl Handle {
    pub(super) fn new(registry: Registry) -> Self {
        Self(Arc::new(Shared { registry, seen: Mutex::default() }))
    }

    pub(super) fn record(&self, key: Key, result: CheckResult) {
        self.seen().results.insert(key, result);
    }

    /// The nodes that share the checks, and which checks are this node's: results of others are forgotten.
    pub(super) fn assigned(&self, live: &BTreeSet<NodeId>, is_mine: impl Fn(&Key) -> bool) {
        let mut seen = self.seen();
        if seen.live != *live {
            seen.live.clone_from(live);
        }
        seen.results.retain(|key, _| is_mine(key));
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HealthReports for Handle {
    fn reports(&self, name: &ServiceName) -> BTreeMap<InstanceId, CheckReport> {
        let Some(service) = self.0.registry.borrow().services.get(name).cloned() else {
            return BTreeMap::new();
        };
        if service.health_check.kind == CheckKind::None {
            return BTreeMap::new();
        }
        let seen = self.seen();
        let report = |id: &InstanceId| CheckReport {
            checked_by: checker_of(name, id, &seen.live),
            last: seen.results.get(&(name.clone(), id.clone())).cloned(),
        };
        service.instances.keys().map(|id| (id.clone(), report(id))).collect()
    }
}
