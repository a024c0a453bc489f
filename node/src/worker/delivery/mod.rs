//! Delivery: takes messages that are due, calls their targets, and settles what came of it.
//!
//! [`Options::handle`] makes the [`Handle`] first, because the store asks it for slots; [`Options::build`] then makes the
//! [`Dispatcher`] over the store's queue. Who holds what: `slots` counts, `shared` decides whether a target may be called,
//! `dispatcher` claims and starts, `attempt` makes one call, `settler` writes the ends down.

mod attempt;
mod dispatcher;
mod metrics;
mod options;
mod settler;
mod shared;
mod slots;

#[cfg(test)]
pub(crate) mod tests;

pub use dispatcher::{Dispatcher, Ports};
pub use options::{BuildError, Options};
pub use shared::{Handle, Registry};
