//! Claims on messages, and how an attempt under a claim is settled.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::delivery::DeadReason;
use crate::id::{MessageId, NodeId};
use crate::message::Attempt;
use crate::time::Timestamp;

/// The durable right of one node to make one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// Which message.
    pub message: MessageId,
    /// Who may attempt it.
    pub owner: NodeId,
    /// The term of the `messages` leader that made the claim (0 where the store knows no terms).
    pub term: u64,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// After this the message is due again.
    pub lease_end: Timestamp,
}

/// How an attempt ended, for its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// 2xx.
    Delivered,
    /// An answer that asks for another try.
    Failed,
    /// An answer that forbids another try.
    Rejected,
    /// The connection was never made: the target cannot have got it.
    NotSent,
    /// No answer: the target may have got it.
    NoAnswer,
    /// The hub's own fault; not counted as an attempt against the target.
    HubFault,
}

impl AttemptOutcome {
    /// The target may have got the message although no answer says so.
    #[must_use]
    pub const fn may_have_arrived(self) -> bool {
        matches!(self, Self::NoAnswer)
    }

    /// The word used in interfaces and in SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::NotSent => "not_sent",
            Self::NoAnswer => "no_answer",
            Self::HubFault => "hub_fault",
        }
    }
}

/// What a settlement makes of the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettleOutcome {
    /// Final.
    Delivered,
    /// Due again. `counted` is false for the hub's own faults: the retry count stays.
    RetryAt {
        /// When.
        at: Timestamp,
        /// Whether the attempt counts.
        counted: bool,
    },
    /// Given up.
    Dead(DeadReason),
    /// `expires_at` passed before the attempt could start.
    Expired,
    /// The claim is given back unused: due at once, no attempt row.
    Released,
}

/// The end of one attempt. It takes effect only under the same claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// The claim it was made under.
    pub claim: Claim,
    /// What becomes of the message.
    pub outcome: SettleOutcome,
    /// The attempt's row; none when the claim is released or expired unused.
    pub attempt: Option<Attempt>,
    /// For people; also the message's `error_message`.
    pub error: Option<Arc<str>>,
}
