//! The one way out: guarded HTTP to targets. Deliveries, health checks and later participants go through here, and
//! nothing else in the hub makes an outgoing HTTP request.

mod body;
mod client;
mod connector;
mod departure;
mod failure;
mod guard;
mod resolver;
mod retry_after;

pub mod delivery;
pub mod signature;

#[cfg(test)]
pub(crate) mod tests;

pub use body::{DRAINED, KEPT};
pub use client::{Answer, Call, Options, Outbound};
pub use departure::Departure;
pub use failure::BuildError;
pub use guard::{Anywhere, Guard};
pub use resolver::{ResolveError, Resolver, SystemResolver};
pub use retry_after::retry_after;
