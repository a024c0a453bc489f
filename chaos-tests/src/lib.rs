//! Breaks real clusters: real processes of `message-hub`, on disks that lose power, fill up and fail.
//!
//! The tests stand in `tests/`; here is what they are made of.

pub mod folder;
pub mod power;
pub mod shim;
