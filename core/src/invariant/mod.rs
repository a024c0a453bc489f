//! Invariants: written once, used by property tests, cluster tests and `debug_assert!`.

mod breaker;
mod control;
mod message;

pub use breaker::{breaker, breaker_step};
pub use control::{control, control_step};
pub use message::{Stored, backlog, backlogs, message, message_step};

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}
