//! Fairness between targets: how many deliveries one may have under way, and how many of them may be retries.

mod concurrency;
mod retry_budget;

pub use concurrency::{Concurrency, Permit, Sign};
pub use retry_budget::RetryBudget;
