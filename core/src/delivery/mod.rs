//! Delivery: attempts, what an answer means, when to try again, whether a target may be called now, and where.

mod admission;
mod attempt;
mod choice;
mod outcome;
mod retry;

pub use admission::{Admission, may_call};
pub use attempt::{AttemptOutcome, Claim, SettleOutcome, Settlement};
pub use choice::choose_instance;
pub use outcome::{DeadReason, Evidence, Outcome, Reaction, TargetAnswer, TransportError};
pub use retry::RetryPolicy;
