//! Delivery: attempts, what an answer means, when to try again, and whether a target may be called now.

mod admission;
mod attempt;
mod outcome;
mod retry;

pub use admission::{Admission, may_call};
pub use attempt::{AttemptOutcome, Claim, SettleOutcome, Settlement};
pub use outcome::{DeadReason, Evidence, Outcome, Reaction, TargetAnswer, TransportError};
pub use retry::RetryPolicy;
