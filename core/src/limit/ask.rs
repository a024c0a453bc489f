//! What one request asks of the rate limits, and what it is told.

use std::sync::Arc;
use std::time::Duration;

use super::Rate;
use crate::id::ServiceName;

/// Whose permits are counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Those of a caller, by its token's subject.
    Caller(Arc<str>),
    /// Those of a target.
    Target(ServiceName),
}

/// Permits of one key, one for each message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Whose.
    pub key: Key,
    /// How they come.
    pub rate: Rate,
    /// How many; at most [`MOST_PERMITS`](super::MOST_PERMITS).
    pub permits: u32,
}

/// Everything that one request asks. It is decided in one step: nobody comes between, and what is refused costs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// The caller's permits, for all messages of the request; it pays only for those that their targets have permits for.
    pub caller: Option<Demand>,
    /// The targets' permits, each target once.
    pub targets: Vec<Demand>,
    /// All or none: one target without permits refuses the whole.
    pub whole: bool,
}

impl Ask {
    /// Nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.caller.is_none() && self.targets.is_empty()
    }

    /// All demands, the caller's first.
    pub fn demands(&self) -> impl Iterator<Item = &Demand> {
        self.caller.iter().chain(&self.targets)
    }
}

/// What became of one demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The permits were taken.
    Taken,
    /// There were too few.
    Refused,
    /// There were enough, but nothing was taken because of another demand.
    Spared,
}

/// The answer to one demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// What became of it.
    pub fate: Fate,
    /// Permits left.
    pub left: u32,
    /// When so many will be there, if nobody takes any meanwhile; zero unless refused.
    pub wait: Duration,
    /// When all permits will be saved again.
    pub full_in: Duration,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// To the caller's demand. `Refused` refuses the whole.
    pub caller: Option<Ruling>,
    /// To the targets' demands, in their order.
    pub targets: Vec<Ruling>,
}

impl Verdict {
    /// All rulings, the caller's first.
    pub fn rulings(&self) -> impl Iterator<Item = &Ruling> {
        self.caller.iter().chain(&self.targets)
    }

    /// Takes rulings apart that are in the order of [`Ask::demands`]; `None` if there are not as many.
    #[must_use]
    pub fn of(ask: &Ask, rulings: Vec<Ruling>) -> Option<Self> {
        if rulings.len() != ask.demands().count() {
            return None;
        }
        let mut rulings = rulings.into_iter();
        let caller = ask.caller.as_ref().and_then(|_| rulings.next());
        Some(Self { caller, targets: rulings.collect() })
    }
}
