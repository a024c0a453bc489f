//! Every background task of the process, from start to end: what its failure means, how it is cancelled, and in which
//! order a stopping node lets go.

mod kind;
mod signal;
mod tasks;

pub use kind::{OnCancel, OnError, Stage, TaskKind};
pub use signal::Signals;
pub use tasks::{Failure, TaskError, Tasks, Tokens};

#[cfg(test)]
mod tests;
