//! One running copy of a service.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Health;
use crate::id::InstanceId;
use crate::time::Timestamp;

/// Where a copy of a service listens, and how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Unique within its service.
    pub id: InstanceId,
    /// Base URL, `http` or `https`, without credentials, query or fragment, without a trailing slash.
    pub url: Arc<str>,
    /// Share of deliveries, 1 to 1000; default 100.
    pub weight: u16,
    /// The last replicated opinion.
    pub health: Health,
    /// Set by an operator: no deliveries whatever the checks say.
    pub maintenance: bool,
    /// When `health` last changed.
    pub health_since: Timestamp,
    /// When it was registered first.
    pub registered_at: Timestamp,
}

impl Instance {
    /// Looks fit to take deliveries.
    #[must_use]
    pub const fn is_available(&self) -> bool {
        !self.maintenance && !matches!(self.health, Health::Critical)
    }
}
