//! What may get into the log: only kinds of commands that this version reads. One that nobody can read would stop every
//! node that applies it, for good.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use hub_core::codec::{Command, Envelope, Kind, decode_batch};

/// Kinds, with their versions, that were read back once.
#[derive(Debug, Default)]
pub(super) struct Kinds(Mutex<BTreeSet<(Kind, u16)>>);

impl Kinds {
    /// Whether all commands of an entry are of kinds that this version reads. The first command of each kind is decoded to
    /// find out.
    pub(super) fn readable<C: Command>(&self, entry: &Bytes) -> bool {
        let Some(kinds) = kinds_of(entry.clone()) else { return false };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kinds.is_subset(&known) {
            return true;
        }
        let readable =
            decode_batch::<C>(entry.clone()).is_ok_and(|batch| batch.commands.iter().all(Option::is_some));
        if readable {
            known.extend(kinds);
        }
        readable
    }
}

fn kinds_of(mut entry: Bytes) -> Option<BTreeSet<(Kind, u16)>> {
    let mut kinds = BTreeSet::new();
    while !entry.is_empty() {
        let (_, envelope) = Envelope::read(&mut entry).ok()?;
        kinds.insert((envelope.kind, envelope.version));
    }
    Some(kinds)
}
