//! Breaks real clusters: real processes of `message-hub`, on disks that lose power, fill up and fail, beside servers that
//! stop, stand still and forget.
//!
//! The tests stand in `tests/`; here is what they are made of.

pub mod client;
pub mod cluster;
pub mod doctor;
pub mod folder;
pub mod ledger;
pub mod load;
pub mod node;
pub mod power;
pub mod program;
pub mod receiver;
pub mod scenario;
pub mod servers;
pub mod shim;
pub mod sizes;
pub mod wait;
