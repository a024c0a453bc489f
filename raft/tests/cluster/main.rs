//! Clusters of real groups over real connections, in one process.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes the helpers of an integration test for production code"
)]

mod faults;
mod lone;
mod support;
mod three;
mod toy;
