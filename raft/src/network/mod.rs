//! Between nodes: one listener for both groups, connections that are proven before they carry anything, and openraft's
//! network over them.

mod client;
mod dial;
mod ending;
mod handshake;
mod incoming;
mod key;
mod server;
mod transport;

pub(crate) use client::Network;
pub(crate) use dial::{Lane, joiner_channel};
pub use handshake::{HandshakeError, Refusal};
pub use key::ClusterKey;
pub(crate) use server::{Admission, Endpoint, Parts};
pub use transport::{Transport, TransportOptions};

/// Limits of messages between nodes.
pub(crate) const MAX_MESSAGE: usize = 32 << 20;
/// Data of one part of a snapshot.
pub(crate) const SNAPSHOT_PART: usize = 512 << 10;
