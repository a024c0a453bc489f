//! The states of a message and the pure table of legal transitions. Every store is tested against it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waits for its transaction to commit.
    Held,
    /// Waits for its first attempt, or to become due.
    Pending,
    /// A node holds a claim on it.
    Delivering,
    /// At least one attempt failed; another follows.
    Retrying,
    /// The target took it. Final.
    Delivered,
    /// Cancelled before it was delivered. Final.
    Cancelled,
    /// Its `expires_at` passed first. Final.
    Expired,
    /// Given up; can be replayed or discarded.
    DeadLetter,
    /// A dead letter that an operator threw away. Final.
    Discarded,
}

/// What moves a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// A node claims it for an attempt.
    Claim,
    /// The claim is given back, or its lease ran out, with no attempt counted.
    Release,
    /// The attempt succeeded.
    Deliver,
    /// The attempt failed and another is due later.
    Retry,
    /// Given up: refused by the target, out of retries, too old, or its target is gone.
    Bury,
    /// The sender or an operator cancels it.
    Cancel,
    /// `expires_at` has passed.
    Expire,
    /// An operator sends a dead letter again.
    Replay,
    /// An operator throws a dead letter away.
    Discard,
    /// Its transaction committed.
    Unhold,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Held,
        Self::Pending,
        Self::Delivering,
        Self::Retrying,
        Self::Delivered,
        Self::Cancelled,
        Self::Expired,
        Self::DeadLetter,
        Self::Discarded,
    ];

    /// Nothing moves it any more. (`dead_letter` can still be replayed or discarded.)
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Delivered | Self::Cancelled | Self::Expired | Self::Discarded)
    }

    /// Still to be delivered.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Held | Self::Pending | Self::Delivering | Self::Retrying)
    }

    /// Where `transition` leads from here; `None` if it is not legal. `attempted` says whether an attempt was ever
    /// counted: what was tried once waits as `retrying`.
    #[must_use]
    pub const fn after(self, transition: Transition, attempted: bool) -> Option<Self> {
        use Transition as T;
        Some(match (self, transition) {
            (Self::Pending | Self::Retrying, T::Claim) => Self::Delivering,
            (Self::Delivering, T::Release) => {
                if attempted {
                    Self::Retrying
                } else {
                    Self::Pending
                }
            }
            (Self::Delivering, T::Deliver) => Self::Delivered,
            (Self::Delivering, T::Retry) => Self::Retrying,
            (Self::Delivering | Self::Pending | Self::Retrying, T::Bury) => Self::DeadLetter,
            (Self::Held | Self::Pending | Self::Retrying, T::Cancel) => Self::Cancelled,
            (Self::Held | Self::Pending | Self::Retrying | Self::Delivering, T::Expire) => Self::Expired,
            (Self::DeadLetter, T::Replay) | (Self::Held, T::Unhold) => Self::Pending,
            (Self::DeadLetter, T::Discard) => Self::Discarded,
            _ => return None,
        })
    }

    /// The word used in interfaces and in SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Pending => "pending",
            Self::Delivering => "delivering",
            Self::Retrying => "retrying",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::DeadLetter => "dead_letter",
            Self::Discarded => "discarded",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a status")]
pub struct UnknownStatus;

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(UnknownStatus)
    }
}
