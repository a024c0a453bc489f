//! How much the tests with servers do: little in every run of the tests, much with `HUB_LONG=1`.

use std::time::Duration;

/// The numbers of a run.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// How often all faults come in turn.
    pub rounds: usize,
    /// Those who send while faults come.
    pub senders: usize,
    /// How long each of them rests before a message.
    pub pace: Duration,
    /// So many messages are accepted before each fault.
    pub between: usize,
    /// So many messages are sent at once, more than all hubs take from a queue at a time, before the queue is emptied.
    pub burst: usize,
    /// So many messages are accepted beside a transaction that is held open.
    pub beside_held: usize,
    /// So many messages wait for a service that is not there.
    pub backlog: usize,
    /// A scenario that hangs ends after this, with its logs.
    pub limit: Duration,
}

const SHORT: Sizes = Sizes {
    rounds: 1,
    senders: 20,
    pace: Duration::from_millis(100),
    between: 300,
    burst: 2_000,
    beside_held: 1_500,
    backlog: 10_000,
    limit: Duration::from_secs(540),
};

const LONG: Sizes = Sizes {
    rounds: 8,
    senders: 64,
    pace: Duration::from_millis(100),
    between: 5_000,
    burst: 10_000,
    beside_held: 60_000,
    backlog: 1_000_000,
    limit: Duration::from_secs(2 * 3600),
};

/// What this run does.
pub fn of_this_run() -> &'static Sizes {
    if std::env::var("HUB_LONG").is_ok_and(|long| long == "1") { &LONG } else { &SHORT }
}
