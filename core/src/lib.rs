//! What a message hub *is*: the domain, its state machines and the ports through which it reaches the world.
//!
//! No I/O, no clock, no randomness and no async runtime live here; see `port` for how those come in.

pub mod access;
pub mod breaker;
pub mod codec;
pub mod control;
pub mod delivery;
pub mod error;
pub mod fairness;
pub mod hash;
pub mod id;
pub mod invariant;
pub mod json;
pub mod limit;
pub mod message;
pub mod port;
pub mod registry;
pub mod time;
