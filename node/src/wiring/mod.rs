//! Puts the parts of a node together.

pub mod access;
pub mod address;
pub mod admission;
pub mod api;
pub mod base;
pub mod cache;
pub mod contact;
pub mod delivery;
pub mod drain;
mod drained_queue;
pub mod embedded;
pub mod forming;
pub mod groups;
mod key_sets;
pub mod message_plane;
mod node;
pub mod postgres;
mod rabbitmq;
pub mod recovery;
pub mod targets;

pub use node::Node;
