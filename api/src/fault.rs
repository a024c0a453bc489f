//! The one place where errors of the ports become problems.

use std::time::Duration;

use hub_core::breaker::Refused;
use hub_core::control::Refusal;
use hub_core::error::{FieldError, code};
use hub_core::port::{AcceptRefusal, ClusterError, ProposeError, ReadError, StoreError};

use crate::problem::Problem;

/// How long to wait before another try, where the port does not say.
const RETRY: Duration = Duration::from_secs(1);

/// How long to wait when something is being repaired rather than busy.
const RETRY_SLOW: Duration = Duration::from_secs(5);

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { reason, retryable } => {
                let problem = Self::new(code::STORE_UNAVAILABLE, reason);
                if retryable { problem.retry_after(RETRY) } else { problem.retry_after(RETRY_SLOW) }
            }
            StoreError::DiskLow => {
                Self::new(code::DISK_LOW, "free disk is below the limit: no new messages are taken")
                    .retry_after(RETRY_SLOW)
            }
            StoreError::Overloaded => {
                Self::new(code::OVERLOADED, "too many writes wait in this node").retry_after(RETRY)
            }
            StoreError::TooLarge { bytes } => Self::new(
                code::TOO_LARGE,
                format!("the write takes {bytes} bytes, more than one entry may hold"),
            ),
            StoreError::Unknown(reason) => unknown(&reason),
            StoreError::Corrupt(reason) => {
                tracing::error!(reason, "the message store found damaged data");
                Self::internal()
            }
        }
    }
}

impl From<ProposeError> for Problem {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NoLeader | ProposeError::LeadershipMoved => no_leader(),
            ProposeError::Overloaded => {
                Self::new(code::OVERLOADED, "too many proposals wait in this node").retry_after(RETRY)
            }
            ProposeError::TooLarge { bytes } => Self::new(
                code::TOO_LARGE,
                format!("the command takes {bytes} bytes, more than one entry may hold"),
            ),
            ProposeError::Unsupported => Self::new(
                code::NOT_BUILT,
                "the node that leads runs a version that does not know this change",
            ),
            ProposeError::Stopped => stopping(),
            ProposeError::Unknown(reason) => unknown(&reason),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NoLeader => no_leader(),
            ReadError::Behind => Self::new(
                code::NODE_BEHIND,
                "this node did not catch up in time; `?consistency=stale` reads what it has",
            )
            .retry_after(RETRY),
            ReadError::Stopped => stopping(),
        }
    }
}

impl From<ClusterError> for Problem {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::NoNode => Self::new(code::NO_NODE, "no node of this id belongs to the cluster"),
            ClusterError::NoGroup(group) => Self::new(
                code::NO_GROUP,
                format!("there is no group {}: a database keeps the messages", group.as_str()),
            ),
            ClusterError::Unsafe(reason) => Self::new(code::UNSAFE, reason),
            ClusterError::Unfinished(reason) => unknown(&reason),
            ClusterError::Propose(error) => error.into(),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoService => Self::new(code::NO_SERVICE, "no service of this name is registered"),
            Refusal::NoInstance => Self::new(code::NO_INSTANCE, "the service has no instance of this id"),
            Refusal::Revision { current } => {
                Self::new(code::REVISION, format!("the service is at revision {current}"))
            }
            Refusal::RegistryFull => Self::new(code::REGISTRY_FULL, "the registry's limit is reached"),
            Refusal::Invalid { field, problem } => {
                Self::fields(vec![FieldError::invalid(&*field, &*problem)])
            }
            Refusal::NoNode => Self::new(code::NO_NODE, "no node of this id belongs to the cluster"),
            Refusal::RequestTableFull => {
                Self::new(code::OVERLOADED, "too many changes within a minute").retry_after(RETRY_SLOW)
            }
            Refusal::RequestReused => Self::new(
                code::KEY_REUSED,
                "the same Idempotency-Key stood for another request within the last minute",
            ),
            Refusal::Breaker(Refused::Stale { current }) => {
                Self::new(code::BREAKER_EPOCH, format!("the breaker is at epoch {current}"))
            }
            Refusal::IdentityTaken | Refusal::Breaker(_) => {
                tracing::error!("a request of the interface was refused as if it were a node's");
                Self::internal()
            }
        }
    }
}

impl From<AcceptRefusal> for Problem {
    fn from(refusal: AcceptRefusal) -> Self {
        match refusal {
            AcceptRefusal::KeyReused => {
                Self::new(code::KEY_REUSED, "this Idempotency-Key stood for another body before")
            }
            AcceptRefusal::BacklogFull { target, retry_after } => {
                Self::new(code::BACKLOG_FULL, format!("too many messages wait for {target}"))
                    .retry_after(retry_after)
            }
            AcceptRefusal::BatchRefused => {
                Self::new(code::BATCH_REFUSED, "another message of the batch was refused; nothing was stored")
            }
        }
    }
}

fn no_leader() -> Problem {
    Problem::new(code::NO_LEADER, "no leader answered before the deadline; nothing was changed")
        .retry_after(RETRY)
}

fn stopping() -> Problem {
    Problem::new(code::DRAINING, "this node is stopping; use another one").retry_after(RETRY)
}

fn unknown(reason: &str) -> Problem {
    Problem::new(
        code::UNKNOWN_OUTCOME,
        "it may or may not have been done: ask again with the same Idempotency-Key",
    )
    .because(reason)
    .unknown()
}
