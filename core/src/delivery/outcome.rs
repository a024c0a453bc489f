//! The answer table: what an answer of the target means for the message, and as evidence about the target.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AttemptOutcome, RetryPolicy};
use crate::time::Timestamp;

/// Why no answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportError {
    /// The name does not resolve (the name server answered so).
    NameNotFound,
    /// Connection refused, reset while connecting, or no route.
    Connect,
    /// The connection was not made in time.
    ConnectTimeout,
    /// TLS failed.
    Tls,
    /// The connection broke after the request had started to leave.
    Broken,
    /// No answer in time after the request had started to leave.
    Timeout,
    /// Hub's own: the address is refused by the guard.
    Guarded,
    /// Hub's own: the name server is down, no files left, shutting down.
    Local,
}

impl TransportError {
    /// A bounded word for labels and rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NameNotFound => "name_not_found",
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
            Self::Broken => "broken",
            Self::Timeout => "timeout",
            Self::Guarded => "guarded",
            Self::Local => "local",
        }
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetAnswer {
    /// An HTTP answer.
    Http {
        /// Its status code.
        status: u16,
        /// Its `Retry-After`, if any, from now.
        retry_after: Option<Duration>,
    },
    /// None.
    Failed(TransportError),
}

/// What an attempt says about the target, for its breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// It is alive and answers.
    Success,
    /// It fails.
    Failure,
    /// It asks for less.
    Throttle,
    /// Says nothing about it.
    NotCounted,
}

/// Why a message was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// The target answered 410.
    Gone,
    /// The target refused it for good.
    Rejected,
    /// No retry was left.
    Exhausted,
    /// Older than `max_age`.
    TooOld,
    /// Older than `max_age`, and its target is not registered.
    NoTarget,
}

impl DeadReason {
    /// The word used in interfaces and in SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Rejected => "rejected",
            Self::Exhausted => "exhausted",
            Self::TooOld => "too_old",
            Self::NoTarget => "no_target",
        }
    }
}

/// What becomes of the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target took it.
    Delivered,
    /// Try again.
    RetryAt {
        /// When.
        at: Timestamp,
        /// Whether the attempt counts.
        counted: bool,
    },
    /// Give up.
    DeadLetter(DeadReason),
}

/// All that follows from one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reaction {
    /// For the message.
    pub outcome: Outcome,
    /// For the attempt's row.
    pub attempt: AttemptOutcome,
    /// For the breaker.
    pub evidence: Evidence,
    /// The whole target is to be left alone for this long.
    pub slow_target: Option<Duration>,
    /// For people.
    pub error: Option<Arc<str>>,
}

impl Reaction {
    /// Reads the answer to an attempt. `retries_done` counts the retries so far, `max_retries` how many may be made;
    /// `below` gives the jitter.
    pub fn to(
        answer: &TargetAnswer,
        policy: &RetryPolicy,
        retries_done: u32,
        max_retries: u32,
        now: Timestamp,
        below: impl FnOnce(u64) -> u64,
    ) -> Self {
        let (attempt, evidence, dead, asked) = classify(answer, policy);
        let retry_after = asked.map(|wait| wait.min(Duration::from_millis(u64::from(policy.cap_ms))));
        let counted = attempt != AttemptOutcome::HubFault;
        let outcome = match (attempt, dead) {
            (AttemptOutcome::Delivered, _) => Outcome::Delivered,
            (_, Some(reason)) => Outcome::DeadLetter(reason),
            _ if counted && retries_done >= max_retries => Outcome::DeadLetter(DeadReason::Exhausted),
            _ => Outcome::RetryAt { at: now.plus(policy.delay(retries_done, retry_after, below)), counted },
        };
        // Who throttles without saying for how long is left alone for one base step.
        let base = Duration::from_millis(u64::from(policy.base_ms));
        let slow_target = (evidence == Evidence::Throttle).then(|| retry_after.unwrap_or(base));
        Self { outcome, attempt, evidence, slow_target, error: describe(answer) }
    }
}

type Class = (AttemptOutcome, Evidence, Option<DeadReason>, Option<Duration>);

fn classify(answer: &TargetAnswer, policy: &RetryPolicy) -> Class {
    use AttemptOutcome as A;
    match answer {
        TargetAnswer::Http { status: 200..=299, .. } => (A::Delivered, Evidence::Success, None, None),
        TargetAnswer::Http { status: 429, retry_after } => {
            (A::Failed, Evidence::Throttle, None, *retry_after)
        }
        TargetAnswer::Http { status: 503, retry_after: Some(wait) } => {
            (A::Failed, Evidence::Throttle, None, Some(*wait))
        }
        TargetAnswer::Http { status: status @ (300..=407 | 409..=499), retry_after }
            if policy.retry_on.contains(status) =>
        {
            (A::Failed, Evidence::Success, None, *retry_after)
        }
        TargetAnswer::Http { status: 410, .. } => {
            (A::Rejected, Evidence::Success, Some(DeadReason::Gone), None)
        }
        TargetAnswer::Http { status: 300..=407 | 409..=499, .. } => {
            (A::Rejected, Evidence::Success, Some(DeadReason::Rejected), None)
        }
        // 408, 5xx, and what no server should say.
        TargetAnswer::Http { retry_after, .. } => (A::Failed, Evidence::Failure, None, *retry_after),
        TargetAnswer::Failed(TransportError::Broken | TransportError::Timeout) => {
            (A::NoAnswer, Evidence::Failure, None, None)
        }
        TargetAnswer::Failed(TransportError::Guarded | TransportError::Local) => {
            (A::HubFault, Evidence::NotCounted, None, None)
        }
        TargetAnswer::Failed(_) => (A::NotSent, Evidence::Failure, None, None),
    }
}

fn describe(answer: &TargetAnswer) -> Option<Arc<str>> {
    match answer {
        TargetAnswer::Http { status: 200..=299, .. } => None,
        TargetAnswer::Http { status, .. } => Some(format!("target answered {status}").into()),
        TargetAnswer::Failed(error) => Some(
            match error {
                TransportError::NameNotFound => "the target's host name does not resolve",
                TransportError::Connect => "could not connect to the target",
                TransportError::ConnectTimeout => "the target did not accept the connection in time",
                TransportError::Tls => "the TLS handshake with the target failed",
                TransportError::Broken => "the connection broke before the target answered",
                TransportError::Timeout => "the target did not answer in time",
                TransportError::Guarded => "the target's address is not allowed (see ALLOWED_TARGETS)",
                TransportError::Local => "the hub could not make the request",
            }
            .into(),
        ),
    }
}
