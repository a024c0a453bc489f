//! What can be proposed to the control group. Encoded shapes are frozen once released.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::BreakerCommand;
use crate::delivery::RetryPolicy;
use crate::id::{InstanceId, NodeId, ServiceName};
use crate::registry::{DeliverySettings, Health, HealthCheck};

/// A service as it is registered: checked in form at the edge, checked again in `apply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Its name.
    pub name: ServiceName,
    /// Its own version.
    pub version: Option<Arc<str>>,
    /// `(id, url, weight)`: upserted; instances not named stay.
    pub instances: Vec<(InstanceId, Arc<str>, u16)>,
    /// Delivery settings.
    pub delivery: DeliverySettings,
    /// Retry settings.
    pub retry: RetryPolicy,
    /// Health check.
    pub health_check: HealthCheck,
    /// Types it takes; all if empty.
    pub message_types: Vec<Arc<str>>,
    /// JSON text of an object.
    pub metadata: Option<Arc<str>>,
    /// For filters.
    pub tags: Vec<Arc<str>>,
    /// Used if the service is new: its first signing secret, made at the edge.
    pub fresh_secret: Arc<str>,
    /// Only if the service is at this revision.
    pub if_revision: Option<u64>,
}

/// A changed opinion on an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthChange {
    /// Whose.
    pub service: ServiceName,
    /// Which.
    pub instance: InstanceId,
    /// The URL that was checked: no effect if the instance moved meanwhile.
    pub url: Arc<str>,
    /// What it is now.
    pub health: Health,
}

/// A command of the control group. `apply` checks every field again; what it refuses is [`super::Reply::Refused`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first entry of a cluster: its name. No effect if it has one. Answers `Cluster` with the name it has then.
    Found {
        /// Random id of the cluster.
        cluster: u128,
    },
    /// A node asks for an id, or says its new address and version. Answers `Admitted`. Without an id: the one it has under
    /// this incarnation, or a new one. With an id: it must be a member's, of the same incarnation (`IdentityTaken`,
    /// `NoNode`); only the very first node of a cluster brings its own.
    Admit {
        /// Its id if it has one.
        node: Option<NodeId>,
        /// See [`super::Member`].
        incarnation: u128,
        /// See [`super::Member`].
        raft_addr: Arc<str>,
        /// See [`super::Member`].
        rest_url: Arc<str>,
        /// See [`super::Member`].
        version: Arc<str>,
    },
    /// A node is removed for good: its id is not given again. Answers `Done`.
    Remove {
        /// Which.
        node: NodeId,
    },
    /// A node starts or ends draining. Answers `Done`.
    SetDraining {
        /// Which.
        node: NodeId,
        /// To this.
        draining: bool,
    },
    /// Registers or updates a service. Answers `Service`. All but the instances is replaced; instances named are upserted
    /// and keep their health while their URL stays; a new or moved one starts passing. What changes nothing keeps the
    /// revision.
    Register(Box<Registration>),
    /// Removes a service; its messages wait as for an unregistered one. Answers `Done`.
    Deregister {
        /// Which.
        service: ServiceName,
    },
    /// Removes one instance. Answers `Done`.
    DeregisterInstance {
        /// Of which service.
        service: ServiceName,
        /// Which.
        instance: InstanceId,
    },
    /// Pauses or resumes deliveries. Answers `Service`.
    SetPaused {
        /// Which.
        service: ServiceName,
        /// To this.
        paused: bool,
    },
    /// Puts an instance into maintenance, or takes it out. Answers `Service`.
    SetMaintenance {
        /// Of which service.
        service: ServiceName,
        /// Which.
        instance: InstanceId,
        /// To this.
        maintenance: bool,
    },
    /// Changes of health, after thresholds; at most 10,000. Answers `Changed`.
    SetHealth(Vec<HealthChange>),
    /// A new signing secret; the old ones sign for another 24 h. Answers `Service` with the secret.
    RotateSecret {
        /// Whose.
        service: ServiceName,
        /// The new one, made at the edge.
        secret: Arc<str>,
    },
    /// About circuit breakers.
    Breaker(BreakerCommand),
}
