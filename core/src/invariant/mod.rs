//! Invariants: written once, used by property tests, cluster tests and `debug_assert!`.

mod control;

pub use control::{control, control_step};
