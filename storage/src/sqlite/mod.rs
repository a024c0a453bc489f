//! The embedded message store: SQLite on each node, kept equal by the Raft group `messages`.
//!
//! [`SqliteMachine`] applies the log; [`Store`] proposes to it and reads what it applied; [`Feed`] carries what was applied
//! to the delivery queue. Build them in this order: [`Feed::new`], [`Options::open`], the replicated group (with the feed as
//! its stamper), [`StoreOptions::build`]; run the [`StoreService`] that comes with the store.

mod apply;
mod bulk;
pub mod command;
mod database;
mod fault;
mod feed;
mod folder;
mod machine;
mod read;
mod row;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod walk;
mod write_back;

pub use command::{Command, Reply};
pub use fault::Fault;
pub use feed::Feed;
pub use machine::{Options, SqliteMachine};
pub use read::Reader;
pub use store::{DiskGuard, DiskLimit, Store, StoreOptions, StorePorts, StoreService};
pub use walk::Walk;
