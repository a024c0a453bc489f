//! The hub's process: configuration, wiring, workers, lifecycle and command line.

pub mod config;
pub mod outbound;
pub mod telemetry;
