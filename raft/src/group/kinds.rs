//! What may get into the log: only kinds of commands that this version reads. One that nobody can read would stop every
//! node that applies it, for good.

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use hub_core::codec::{Command, Envelope, Kind, decode_batch};

/// Kinds, with their versions, that were read back once.
#[derive(Debug, Default)]
pub(super) struct Kinds(RwLock<BTreeSet<(Kind, u16)>>);

impl Kinds {
    /// Whether all commands of an entry are of kinds that this version reads. The first command of each kind is decoded to
    /// find out.
    pub(super) fn readable<C: Command>(&self, entry: &Bytes) -> bool {
        let Some(fresh) = self.fresh(entry.clone()) else { return false };
        if fresh.is_empty() {
            return true;
        }
        let readable =
            decode_batch::<C>(entry.clone()).is_ok_and(|batch| batch.commands.iter().all(Option::is_some));
        if readable {
            self.0.write().unwrap_or_else(PoisonError::into_inner).extend(fresh);
        }
        readable
    }

    /// Those of an entry's kinds that were not read back yet; as a rule none, and then nothing is allocated. `None` if the
    /// entry is no row of envelopes.
    fn fresh(&self, mut entry: Bytes) -> Option<Vec<(Kind, u16)>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut fresh = Vec::new();
        while !entry.is_empty() {
            let (_, envelope) = Envelope::read(&mut entry).ok()?;
            let kind = (envelope.kind, envelope.version);
            if !known.contains(&kind) {
                fresh.push(kind);
            }
        }
        Some(fresh)
    }
}
