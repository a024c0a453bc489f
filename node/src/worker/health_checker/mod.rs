//! Health checks: every instance is checked by one live node; only changes of state go through the log.
//!
//! `probe` makes one check, `schedule` keeps when the next ones are due, `checker` is the loop, and the [`Handle`] shows the
//! last results.

mod checker;
mod handle;
mod probe;
mod schedule;

#[cfg(test)]
mod tests;

pub use checker::{Checker, Options, Ports};
pub use handle::Handle;
