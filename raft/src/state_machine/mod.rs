//! A core `StateMachine` as openraft drives one, and the machine in memory with its snapshot files.

mod adapter;
mod copy;
mod files;
mod memory;

pub(crate) use adapter::{Adapter, AdapterParts, Applied, mark_of, read_mark};
pub(crate) use copy::{CopyFile, Incoming, SnapshotSource};
pub use memory::{MemoryOptions, MemoryState, View};
