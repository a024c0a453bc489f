//! The message stores: every SQL word of the hub.

mod listing;
pub mod postgres;
pub mod sqlite;
pub mod suite;
