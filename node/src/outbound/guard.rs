//! The port through which the connector asks whether an address may be connected to.

use std::net::SocketAddr;

/// Says which addresses may be called. Asked for every address, each time a connection is made.
pub trait Guard: Send + Sync + 'static {
    /// Whether `address` may be connected to.
    fn permits(&self, address: SocketAddr) -> bool;
}

/// Permits everything: for calls between the hub's own tools and for tests, never for targets.
#[derive(Clone, Copy, Debug)]
pub struct AnyAddress;

impl Guard for AnyAddress {
    fn permits(&self, _address: SocketAddr) -> bool {
        true
    }
}
