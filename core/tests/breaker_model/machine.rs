//! One replica of the record, and the mistakes that can be planted in it.

use std::time::Duration;

use hub_core::breaker::{Config, Context, Mode, Order, Outcome, Phase, Record, Report, State};
use hub_core::id::{NodeId, ServiceName};
use hub_core::time::Timestamp;

const T: i64 = 1_800_000_000_000;

/// What is wrong with the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    None,
    SecondLease,
    NoLeaseEnd,
    NoRetryAt,
    ForcedMoves,
    CountsTwice,
    OwnClock,
    IgnoresEpoch,
    DeafToObjections,
}

/// What can be proposed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Command {
    Report(NodeId, Report),
    Advance(u64),
    Ask(NodeId, u64),
    Done(NodeId, u64, Outcome),
    /// An operator's word: held open until then, or auto again.
    Hold(Option<i64>),
    /// Another: closed, and all counters zero.
    Reset,
}

impl Command {
    pub(crate) const fn epoch(&self) -> Option<u64> {
        match self {
            Self::Report(_, report) => Some(report.epoch),
            Self::Advance(epoch) | Self::Ask(_, epoch) | Self::Done(_, epoch, _) => Some(*epoch),
            Self::Hold(_) | Self::Reset => None,
        }
    }

    fn set_epoch(&mut self, now: u64) {
        match self {
            Self::Report(_, report) => report.epoch = now,
            Self::Advance(epoch) | Self::Ask(_, epoch) | Self::Done(_, epoch, _) => *epoch = now,
            Self::Hold(_) | Self::Reset => {}
        }
    }
}

/// A log entry: the leader's time, in milliseconds of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) now: i64,
    pub(crate) command: Command,
}

/// What is watched while entries are applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    /// A command on another epoch changed something.
    pub(crate) stale_moved: bool,
    /// Traffic moved a forced mode.
    pub(crate) forced_moved: bool,
}

/// A replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Replica {
    pub(crate) applied: usize,
    pub(crate) clock: i64,
    pub(crate) record: Record,
    pub(crate) seen: Seen,
}

pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(T + millis)
}

pub(crate) fn config() -> Config {
    Config { reset_timeout_s: 1, max_open_s: 1, failure_threshold: 3, ..Config::default() }
}

impl Replica {
    pub(crate) fn new(record: Record) -> Self {
        Self { applied: 0, clock: 0, record, seen: Seen::default() }
    }

    /// Applies the next entry. `own_time` is used by a replica that makes that mistake.
    pub(crate) fn apply(&mut self, entry: &Entry, nodes: usize, mistake: Mistake, own_time: Option<i64>) {
        let stamped = own_time.filter(|_| mistake == Mistake::OwnClock).unwrap_or(entry.now);
        self.applied += 1;
        self.clock = self.clock.max(stamped);
        let service: ServiceName = "s0".parse().unwrap();
        let cx = Context {
            service: &service,
            clock: at(self.clock),
            nodes,
            delivery_timeout: Duration::from_secs(2),
            defaults: &config(),
        };
        let before = self.record.clone();
        let mut command = entry.command.clone();
        self.plant(&mut command, mistake, &cx);
        self.perform(&command, &cx);
        if mistake == Mistake::CountsTwice
            && let Command::Done(_, _, Outcome::Succeeded) = &command
            && self.record.state() == State::HalfOpen
        {
            command.set_epoch(self.record.epoch);
            self.perform(&command, &cx);
        }
        match &mut self.record.phase {
            Phase::HalfOpen { probe, .. } if mistake == Mistake::NoLeaseEnd => {
                probe.lease_until = Timestamp::MAX;
            }
            Phase::Open { retry_at, .. } if mistake == Mistake::NoRetryAt => *retry_at = Timestamp::MAX,
            _ => {}
        }
        let stale = entry.command.epoch().is_some_and(|epoch| epoch != before.epoch);
        self.seen.stale_moved |= stale && before != self.record;
        let held = before.mode.is_forced() && before.mode_until.is_some_and(|until| until > cx.clock);
        let moved = (before.mode, &before.phase) != (self.record.mode, &self.record.phase);
        self.seen.forced_moved |= held && moved && !matches!(entry.command, Command::Hold(_));
        // What the transitions say is not looked at here; kept, every path would be a state of its own.
        self.record.transitions.clear();
    }

    fn perform(&mut self, command: &Command, cx: &Context<'_>) {
        let record = &mut self.record;
        match command {
            Command::Report(node, report) => drop(record.report(cx, *node, report)),
            Command::Advance(epoch) => drop(record.advance(cx, *epoch)),
            Command::Ask(node, epoch) => drop(record.ask_probe(cx, *node, *epoch)),
            Command::Done(node, epoch, outcome) => drop(record.probe_done(cx, *node, *epoch, *outcome)),
            Command::Hold(until) => hold(record, cx, *until),
            Command::Reset => record.reset(cx, &order()).unwrap(),
        }
    }

    fn plant(&mut self, command: &mut Command, mistake: Mistake, cx: &Context<'_>) {
        let record = &mut self.record;
        match mistake {
            Mistake::IgnoresEpoch => command.set_epoch(record.epoch),
            Mistake::SecondLease => {
                if let (Command::Ask(..), Phase::HalfOpen { opened_at, .. }) = (&*command, &record.phase) {
                    let opened_at = *opened_at;
                    record.phase = Phase::Open { opened_at, retry_at: cx.clock, asked_until: None };
                    command.set_epoch(record.epoch);
                }
            }
            Mistake::ForcedMoves if !matches!(command, Command::Hold(_)) => {
                (record.mode, record.mode_until) = (Mode::Auto, None);
                if let Phase::Open { retry_at, .. } = &mut record.phase {
                    *retry_at = cx.clock;
                }
                command.set_epoch(record.epoch);
            }
            Mistake::DeafToObjections => {
                if let (Command::Advance(_), Phase::Closed(closed)) = (&*command, &mut record.phase) {
                    closed.votes.retain(|_, vote| vote.accuses());
                }
            }
            _ => {}
        }
    }
}

/// `force-open` and `auto` as the record's owner, the control machine, would have them done.
fn hold(record: &mut Record, cx: &Context<'_>, until: Option<i64>) {
    let mode = if until.is_some() { Mode::ForcedOpen } else { Mode::Auto };
    // A replica that takes another time may refuse it: that is for the properties to see.
    drop(record.set_mode(cx, &order(), mode, until.map(at)));
}

fn order() -> Order {
    Order { actor: "ops".into(), reason: Some("model".into()), if_epoch: None }
}
