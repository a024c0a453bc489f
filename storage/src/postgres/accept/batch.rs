//! One flush: the rows of the callers whose turn it is, and what becomes of each.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hub_core::id::ServiceName;
use hub_core::message::NewMessage;
use hub_core::port::{AcceptRefusal, Accepted, StoreError};
use hub_core::time::Timestamp;
use uuid::Uuid;

use super::queue::{Judged, Unit};

/// What became of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Written now.
    New,
    /// Its id was there already. `claimed` if this node holds the claim that came with it.
    Known { created_at: Timestamp, claimed: bool },
    /// Its key was used before, for the same body.
    Replayed { id: Uuid, created_at: Timestamp },
    /// Its key was used before, for another body.
    KeyReused,
    /// The target's backlog is full.
    Full,
}

impl Verdict {
    pub(super) const fn is_refusal(&self) -> bool {
        matches!(self, Self::KeyReused | Self::Full)
    }
}

/// A message to be written.
pub(super) struct Row {
    /// Which unit, and where in it.
    place: (usize, usize),
    pub(super) message: NewMessage,
    /// The lease of the claim that it is written with, if it found a free slot.
    pub(super) lease: Option<Duration>,
    /// How long the sweeper leaves it to this node to publish it.
    pub(super) publish: Option<Duration>,
    pub(super) verdict: Option<Verdict>,
}

/// A message that repeats another one of the same flush.
struct Follower {
    place: (usize, usize),
    leader: usize,
    /// By its key; else by its id.
    same_body: Option<bool>,
}

/// A flush under way.
pub(super) struct Batch {
    pub(super) rows: Vec<Row>,
    followers: Vec<Follower>,
    units: Vec<Unit>,
    pub(super) atomic: bool,
    /// The latest of its callers' deadlines.
    pub(super) deadline: Option<Instant>,
}

impl Batch {
    pub(super) fn of(mut units: Vec<Unit>) -> Self {
        let deadline = units.iter().map(|unit| unit.deadline).max();
        let atomic = units.iter().any(|unit| unit.atomic);
        let (mut rows, mut followers): (Vec<Row>, Vec<Follower>) = (Vec::new(), Vec::new());
        let (mut ids, mut keys) = (HashMap::new(), HashMap::new());
        for (of, unit) in units.iter_mut().enumerate() {
            for (at, message) in std::mem::take(&mut unit.messages).into_iter().enumerate() {
                let place = (of, at);
                let key = message.idempotency.as_ref();
                let name = key.map(|key| (key.caller.clone(), key.key.clone()));
                if let Some(leader) = ids.get(&message.id).copied() {
                    followers.push(Follower { place, leader, same_body: None });
                } else if let Some((leader, fingerprint)) = name.as_ref().and_then(|name| keys.get(name)) {
                    let same_body = key.map(|key| key.fingerprint == *fingerprint);
                    followers.push(Follower { place, leader: *leader, same_body });
                } else {
                    ids.insert(message.id, rows.len());
                    if let (Some(name), Some(key)) = (name, key) {
                        keys.insert(name, (rows.len(), key.fingerprint));
                    }
                    rows.push(Row { place, message, lease: None, publish: None, verdict: None });
                }
            }
        }
        Self { rows, followers, units, atomic, deadline }
    }

    /// The units again, to be written apart; only before anything was judged.
    pub(super) fn into_units(self) -> Vec<Unit> {
        let mut units = self.units;
        let mut places: Vec<_> = self.rows.into_iter().map(|row| (row.place, row.message)).collect();
        places.sort_unstable_by_key(|(place, _)| *place);
        for ((of, _), message) in places {
            if let Some(unit) = units.get_mut(of) {
                unit.messages.push(message);
            }
        }
        units
    }

    /// Several callers' messages are in it, and none repeats another.
    pub(super) fn can_be_parted(&self) -> bool {
        self.units.len() > 1 && self.followers.is_empty()
    }

    /// Rows that are still to be written.
    pub(super) fn open(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.verdict.is_none())
    }

    /// A row was refused, or repeats one with another body: an atomic batch does not stand.
    pub(super) fn has_refusal(&self) -> bool {
        let refused = self.rows.iter().any(|row| row.verdict.as_ref().is_some_and(Verdict::is_refusal));
        refused || self.followers.iter().any(|follower| follower.same_body == Some(false))
    }

    /// Tells every caller.
    pub(super) fn answer(self, written: Result<(), StoreError>, retry_after: Duration) {
        if let Err(error) = written {
            for unit in self.units {
                // A caller that has gone does not want to know.
                let _ = unit.answer.send(Err(error.clone()));
            }
            return;
        }
        let refused = self.atomic && self.has_refusal();
        let mut answers: Vec<HashMap<usize, Judged>> = self.units.iter().map(|_| HashMap::new()).collect();
        let mut put = |(of, at): (usize, usize), judged: Judged| {
            let judged = if refused { judged.and(Err(AcceptRefusal::BatchRefused)) } else { judged };
            if let Some(unit) = answers.get_mut(of) {
                unit.insert(at, judged);
            }
        };
        for follower in &self.followers {
            let Some(leader) = self.rows.get(follower.leader) else { continue };
            let judged = match follower.same_body {
                Some(false) => Err(AcceptRefusal::KeyReused),
                same => judged(leader, retry_after)
                    .map(|first| Accepted { replayed: same.is_some() || first.replayed, ..first }),
            };
            put(follower.place, judged);
        }
        for row in &self.rows {
            put(row.place, judged(row, retry_after));
        }
        for (unit, mut answers) in self.units.into_iter().zip(answers) {
            let list = (0..answers.len()).filter_map(|at| answers.remove(&at)).collect();
            let _ = unit.answer.send(Ok(list));
        }
    }
}

fn judged(row: &Row, retry_after: Duration) -> Judged {
    let message = &row.message;
    let accepted = |created_at| Accepted {
        id: message.id,
        status: hub_core::message::Status::Pending,
        created_at,
        replayed: false,
    };
    match &row.verdict {
        Some(Verdict::New) => Ok(accepted(message.created_at)),
        Some(Verdict::Known { created_at, .. }) => Ok(accepted(*created_at)),
        Some(Verdict::Replayed { id, created_at }) => {
            Ok(Accepted { id: hub_core::id::MessageId(*id), replayed: true, ..accepted(*created_at) })
        }
        Some(Verdict::KeyReused) => Err(AcceptRefusal::KeyReused),
        Some(Verdict::Full) => Err(full(&message.target, retry_after)),
        // Only in an atomic batch that was refused before it was written.
        None => Err(AcceptRefusal::BatchRefused),
    }
}

fn full(target: &ServiceName, retry_after: Duration) -> AcceptRefusal {
    AcceptRefusal::BacklogFull { target: target.clone(), retry_after }
}
