//! What the process says of itself: log lines and process metrics.

mod log;

pub use log::{LogError, filter, init};
