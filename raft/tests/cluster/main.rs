//! Clusters of real groups over real connections, in one process.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod faults;
mod lone;
mod support;
mod three;
mod toy;
