//! RabbitMQ as the delivery queue in front of a store that keeps the rows.
//!
//! The row is the outbox; the broker carries ids and routing data, and its copy can be made again at any time. The way of a
//! message: the store writes its row, with the promise of this node to publish it ([`Outlet`]); `publisher` sends it to the
//! queue of its target and waits for the broker's word, `gate` sees to it that the broker holds no more than a window of each
//! target; `consumers` take it off the queue and put it on a shelf (`shelves`); the dispatcher asks [`Queue`] for it, which
//! claims its row; when its attempt is settled it is acknowledged. Nothing is ever given back to the broker: what cannot be
//! delivered now is *parked* in its row, and `sweeper` brings it again, as it does with what the broker has lost.
//!
//! Build them in this order: [`Options::build`], the store with [`Broker::outlet`], [`Broker::attach`]; run the [`Service`].

pub mod admin;
mod broker;
mod connection;
mod consumers;
mod error;
mod gate;
mod greeting;
mod letter;
mod metrics;
mod name;
mod options;
mod publisher;
mod queue;
mod rows;
mod service;
mod shelves;
mod signals;
mod sweeper;
#[cfg(test)]
mod tests;
mod topology;
mod trial;

pub use broker::{Broker, Outlet};
pub use error::Error;
pub use name::{Kind, Prefix, PrefixError};
pub use options::{BuildError, Options, Ports};
pub use queue::Queue;
pub use rows::{Rows, UNDERTAKEN, Undertaken, Wanted};
pub use service::Service;
pub use topology::Depth;
