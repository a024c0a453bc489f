//! A registered service: where, how and what it wants delivered.

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{HealthCheck, Instance};
use crate::delivery::RetryPolicy;
use crate::id::{InstanceId, ServiceName};
use crate::time::Timestamp;

/// How messages are pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliverySettings {
    /// Appended to the instance's URL; default `/messages`.
    pub path: Arc<str>,
    /// Until an attempt counts as unanswered, 100 ms to 300 s; default 10 s.
    pub timeout_ms: u32,
    /// Attempts at a time on one node, 1 to 200; default 10.
    pub max_concurrency: u16,
    /// Further headers for every delivery: lower-case names, no hop-by-hop and none of the hub's own.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
    /// After this a message becomes a dead letter, in seconds; the hub's `max_age` (7 days) if `None`.
    pub max_age_s: Option<u32>,
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self {
            path: "/messages".into(),
            timeout_ms: 10_000,
            max_concurrency: 10,
            headers: Vec::new(),
            max_age_s: None,
        }
    }
}

/// A signing secret (Standard Webhooks v1): `whsec_` and base64 of 32 bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// The secret as the service got it.
    pub value: Arc<str>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Signs until then; for ever if `None`.
    pub valid_until: Option<Timestamp>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("created_at", &self.created_at).finish_non_exhaustive()
    }
}

/// A service as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its unique name.
    pub name: ServiceName,
    /// Its own version, for people.
    pub version: Option<Arc<str>>,
    /// Its running copies.
    pub instances: OrdMap<InstanceId, Instance>,
    /// How messages are pushed.
    pub delivery: DeliverySettings,
    /// How failed deliveries are repeated.
    pub retry: RetryPolicy,
    /// How instances are checked.
    pub health_check: HealthCheck,
    /// Types it takes; all if empty.
    pub message_types: Vec<Arc<str>>,
    /// JSON text of an object, for people and tools.
    pub metadata: Option<Arc<str>>,
    /// For filters.
    pub tags: Vec<Arc<str>>,
    /// Deliveries are paused.
    pub paused: bool,
    /// Valid signing secrets, newest first.
    pub secrets: Vec<Secret>,
    /// Log index of its last change.
    pub revision: u64,
    /// When it was registered first.
    pub created_at: Timestamp,
    /// When it was changed last (health not counted).
    pub updated_at: Timestamp,
}

impl Service {
    /// Fewer healthy instances than this share (in percent), and all are used: the fault may be ours.
    pub const PROTECT_PERCENT: usize = 30;

    /// So few instances look healthy that all are used.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        let standing = self.instances.values().filter(|instance| !instance.maintenance).count();
        let available = self.instances.values().filter(|instance| instance.is_available()).count();
        available > 0 && available * 100 < standing * Self::PROTECT_PERCENT
    }

    /// The instances that may get deliveries and are shown to who looks for the service.
    pub fn deliverable(&self) -> impl Iterator<Item = &Instance> {
        let protected = self.is_protected();
        self.instances
            .values()
            .filter(move |instance| instance.is_available() || (protected && !instance.maintenance))
    }

    /// Takes messages of this type.
    #[must_use]
    pub fn takes(&self, message_type: &str) -> bool {
        self.message_types.is_empty() || self.message_types.iter().any(|taken| &**taken == message_type)
    }
}
