//! The port through which the connector asks whether an address may be connected to.

use std::net::SocketAddr;

use hub_core::registry::AddressPolicy;

/// Says which addresses may be called. Asked for every address, each time a connection is made.
pub trait Guard: Send + Sync + 'static {
    /// Whether `address` may be connected to.
    fn permits(&self, address: SocketAddr) -> bool;
}

impl Guard for AddressPolicy {
    fn permits(&self, address: SocketAddr) -> bool {
        match self.check(address) {
            Ok(()) => true,
            Err(refused) => {
                tracing::debug!(%address, %refused, "address refused");
                false
            }
        }
    }
}

/// Every address: only for calls whose URL the operator configured, never for one that callers name.
#[derive(Clone, Copy, Debug)]
pub struct Anywhere;

impl Guard for Anywhere {
    fn permits(&self, _address: SocketAddr) -> bool {
        true
    }
}
