//! What the process says of itself: log lines and process metrics.

mod log;
mod process;

pub use log::{LogError, filter, init};
pub use process::register;
