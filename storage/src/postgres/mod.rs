//! The message store on Postgres: every hub writes to it, every hub delivers from it, none of them leads.
//!
//! [`prepare`] brings the database up to date (also alone, for `message-hub migrate`); [`Options::build`] makes the [`Store`]
//! and the [`Service`] that has to run for it. The order at a start: `prepare` until it succeeds or says that it never will
//! ([`SetupError::is_final`]), `build`, spawn `service.run(stop)`, use the store. Neither of them holds a connection before it
//! is needed; a lost server gives [`StoreError::Unavailable`](hub_core::port::StoreError) at once, and is found again by itself.
//!
//! A deployment without rights to change the schema runs `message-hub migrate` as another role first; the hub's own role then
//! needs `CREATE` on the schema and to own `messages` and `attempts` (partitions are made a week ahead).

mod accept;
mod backlog;
mod claim;
mod fault;
mod import;
mod link;
mod list;
mod operator;
mod options;
mod outbox;
mod outbox_port;
#[cfg(test)]
mod plans;
mod probe;
mod record;
mod row;
mod service;
mod settle;
mod setup;
mod signals;
mod store;
mod sweep;
mod text;

pub use import::{Import, ImportError, Standing};
pub use options::{Options, Ports};
pub use outbox_port::{Burial, Outbox, Outgoing};
pub use probe::{Report, probe};
pub use service::Service;
pub use setup::{Prepared, SetupError, prepare};
pub use store::Store;
