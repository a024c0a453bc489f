//! The durable log of one group: `raft-log` below, openraft's storage traits above.
//!
//! One fdatasync a batch: whatever was appended while the last sync ran goes out with the next one, and a lone append is
//! synced at once. An entry is reported as flushed only after its sync. The *synced mark* (a file of its own, see
//! [`mark`]) remembers how far the log was certainly synced, so that a log found shorter than that is known to be damaged
//! rather than torn. A failed sync is final: the store refuses everything after it.

mod codec;
mod flush;
mod mark;
mod open;
mod reader;
mod rebuild;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use flush::SyncStats;
pub use open::{LogOptions, OpenError};
pub(crate) use reader::payload_bytes;
pub use rebuild::{Rebuild, Remains};
pub(crate) use store::{LogHandle, LogStore};
