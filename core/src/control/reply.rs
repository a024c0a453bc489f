//! What the control group answers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::breaker::{Record, Refused};
use crate::id::NodeId;
use crate::registry::Service;

/// Why a command had no effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No such service.
    #[error("no such service")]
    NoService,
    /// The service has no such instance.
    #[error("no such instance")]
    NoInstance,
    /// The service is at another revision.
    #[error("service is at revision {current}")]
    Revision {
        /// Its current one.
        current: u64,
    },
    /// The limit on services or instances is reached.
    #[error("registry is full")]
    RegistryFull,
    /// A field is out of range.
    #[error("{field} {problem}")]
    Invalid {
        /// JSON pointer of the field.
        field: Arc<str>,
        /// What is wrong with it.
        problem: Arc<str>,
    },
    /// No node of this id.
    #[error("no such node")]
    NoNode,
    /// Another process has this identity.
    #[error("identity is taken")]
    IdentityTaken,
    /// The table of request ids is full.
    #[error("too many requests within a minute")]
    RequestTableFull,
    /// The same request id came with another command.
    #[error("request id was used for another command")]
    RequestReused,
    /// The service's breaker did not do it.
    #[error(transparent)]
    Breaker(Refused),
}

/// The answer to a [`super::Command`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done; nothing more to say.
    Done,
    /// The cluster's id.
    Cluster(u128),
    /// The node's id.
    Admitted(NodeId),
    /// The service as it is after the whole entry (on a repeat: as it is now). `Refused(NoService)` if it is gone by then.
    Service {
        /// The service.
        service: Arc<Service>,
        /// It did not exist before.
        created: bool,
        /// The secret, in the one answer that may show it.
        secret: Option<Arc<str>>,
    },
    /// How many health changes took effect.
    Changed(u32),
    /// The breaker as it is after the whole entry (on a repeat: as it is now).
    Breaker(Arc<Record>),
    /// No effect.
    Refused(Refusal),
    /// The command was skipped: this version does not know it.
    Skipped,
}
