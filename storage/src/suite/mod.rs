//! The conformance suite of `MessageStore` and `DeliveryQueue`: every store passes the same cases, alone and replicated.
//! That of `SharedCache` is in [`sharing`].
//!
//! A test builds a fresh [`Stage`] for each of [`cases`] and runs it there.

mod accepting;
mod ending;
mod kit;
mod listing;
mod local;
mod operating;
mod settling;
pub mod sharing;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hub_core::port::{DeliveryQueue, MessageStore, StoreError};
use hub_core::time::Timestamp;

pub use kit::{Ids, ManualClock, RealClock, TestSlots, plain_message};
pub use local::LocalReplicator;

/// A store under test and the world around it.
pub struct Stage {
    /// The store. Its backlog bound is [`BACKLOG_BOUND`].
    pub store: Arc<dyn MessageStore>,
    /// The queue of the node that delivers.
    pub queue: Arc<dyn DeliveryQueue>,
    /// The only time there is for the store.
    pub clock: Arc<ManualClock>,
    /// The delivery slots that the store asks for; none are free at first.
    pub slots: Arc<TestSlots>,
    /// Told, and waited for, whenever the clock was moved: a store that asks a clock elsewhere moves that one too.
    pub moved: Option<Moved>,
    /// Messages go through a broker: nothing is claimed when it is accepted.
    pub has_broker: bool,
}

/// Moves another clock to a time.
pub type Moved = Arc<dyn Fn(Timestamp) -> Moving + Send + Sync>;
/// A clock on its way to another time.
pub type Moving = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// The backlog bound that the store under test has.
pub const BACKLOG_BOUND: u64 = 40;

/// What a store did wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(format!("store failed: {error}"))
    }
}

/// What a case says.
pub type Verdict = Result<(), Failure>;
/// A case under way.
pub type Running<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// One case.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Runs it on a fresh stage.
    pub run: for<'a> fn(&'a Stage) -> Running<'a>,
}

/// Fails the case unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::suite::Failure::new(format!($($message)+)));
        }
    };
}
/// Fails the case unless both are equal.
macro_rules! ensure_eq {
    ($left:expr, $right:expr, $what:expr) => {{
        let (left, right) = (&$left, &$right);
        if left != right {
            let what: &str = $what;
            return Err($crate::suite::Failure::new(format!("{what}: found {left:?}, expected {right:?}")));
        }
    }};
}
use {ensure, ensure_eq};

impl Failure {
    pub(crate) const fn new(message: String) -> Self {
        Self(message)
    }
}

macro_rules! list {
    ($($module:ident :: $case:ident),+ $(,)?) => {
        vec![$(Case { name: stringify!($case), run: |stage| Box::pin($module::$case(stage)) }),+]
    };
}

/// All cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    list![
        accepting::keeps_what_came,
        accepting::repeats_an_id,
        accepting::knows_keys_for_a_day,
        accepting::judges_a_batch_one_by_one,
        accepting::takes_an_atomic_batch_whole_or_not,
        accepting::bounds_the_backlog,
        accepting::hands_over_what_found_a_slot,
        settling::claims_by_priority_then_due,
        settling::waits_for_the_due_time,
        settling::delivers_once,
        settling::retries,
        settling::gives_back_a_claim,
        settling::lets_a_lease_run_out,
        settling::buries,
        settling::counts,
        operating::cancels_what_waits,
        operating::cancels_with_doubt,
        operating::replays_a_dead_letter,
        operating::discards_a_dead_letter,
        ending::expires,
        ending::buries_the_old,
        ending::prunes_what_is_final,
        listing::pages_newest_first,
        listing::pages_are_bounded_in_bytes,
        listing::filters,
        listing::shows_each_its_own,
    ]
}
