//! The hub's process: configuration, wiring, workers, lifecycle and command line.

pub mod bench;
pub mod broker;
pub mod cli;
pub mod client;
pub mod clock;
pub mod coded;
pub mod config;
pub mod control_port;
pub mod database;
pub mod dev_cluster;
pub mod doctor;
pub mod identity;
pub mod ids;
pub mod lifecycle;
pub mod outbound;
pub mod recover;
pub mod serve;
pub mod store_copy;
pub mod store_kind;
pub mod telemetry;
pub mod wiring;
pub mod worker;
