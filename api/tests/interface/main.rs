//! The interface over ports in memory: every call, every way it can fail, and what the document says about it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::tests_outside_test_module,
    unreachable_pub,
    reason = "tests"
)]

mod access;
mod batches;
mod dead_letters;
mod document;
mod edge;
mod fake_cache;
mod fakes;
mod messages;
mod operations;
mod provider;
mod rates;
mod rig;
mod server;
mod services;
