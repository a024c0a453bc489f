//! The message stores: every SQL word of the hub.

pub mod sqlite;
pub mod suite;
