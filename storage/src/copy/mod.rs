//! Moves the messages of an embedded store into Postgres: in parts, each with the mark that says how far it came, so that a
//! copy that ended anywhere goes on there.
//!
//! [`sqlite::Walk`](crate::sqlite::Walk) reads, [`postgres::Import`](crate::postgres::Import) writes. [`run`] copies all rows; who
//! calls it then makes the source unusable, durably, and only after that calls
//! [`Import::finish`](crate::postgres::Import::finish): a hub finds one of them usable, never both.

mod rows;

pub(crate) use rows::{Batch, Grown, Key, Waits, Whole};

use crate::postgres::{Import, ImportError};
use crate::sqlite::{Fault, Walk};

/// What is copied: the messages of this node's database as they were after this log entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its cluster.
    pub cluster: u128,
    /// The node.
    pub node: u64,
    /// The last entry that its database has applied.
    pub entry: u64,
}

/// How far a copy is, and what was written so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// The last message, in the order of the source.
    pub(crate) seq: i64,
    /// Idempotency keys that were looked at.
    pub(crate) keys_seen: u64,
    /// Messages.
    pub messages: u64,
    /// Of these, such as are still to be delivered.
    pub open: u64,
    /// Of these, dead letters.
    pub dead_letters: u64,
    /// Attempts.
    pub attempts: u64,
    /// Idempotency keys that are still known.
    pub keys: u64,
}

/// What there is to copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages.
    pub messages: u64,
    /// Of these, such as are still to be delivered.
    pub open: u64,
    /// Of these, dead letters.
    pub dead_letters: u64,
    /// Idempotency keys, also such as are too old.
    pub keys: u64,
}

/// Why a copy stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source cannot be read.
    #[error("the messages of the node cannot be read")]
    Source(#[from] Fault),
    /// The database failed or refused.
    #[error(transparent)]
    Target(#[from] ImportError),
}

/// Copies what is still missing and checks that all of it is there. `tell` hears of every part that was written.
///
/// # Errors
/// Reading or writing failed. What was written stays; the next run goes on after it.
pub async fn run(
    source: &mut Walk,
    target: &mut Import,
    mut tell: impl FnMut(&Done) + Send,
) -> Result<Done, Error> {
    tell(&target.done());
    let mut batch = source.messages(target.done().seq).await?;
    while let Some(last) = batch.messages.last() {
        let after = last.seq;
        let (written, next) = tokio::join!(target.write(&batch), source.messages(after));
        written?;
        tell(&target.done());
        batch = next?;
    }
    let mut keys = source.keys_from(target.done().keys_seen).await?;
    while let Some(last) = keys.last() {
        let after = (last.caller.clone(), last.key.clone());
        let (written, next) = tokio::join!(target.write_keys(&keys), source.keys_after(&after));
        written?;
        tell(&target.done());
        keys = next?;
    }
    target.complete(&source.grown().await?, &source.totals()).await?;
    Ok(target.done())
}
