//! The breakers of the control machine against the plain model, command by command.

use hub_core::breaker::{
    Cause, Config, Counts, Mode, Order, Outcome, Phase, Record, Report, Stand, State as BreakerState,
};
use hub_core::control::{BreakerChange, BreakerCommand, Command, HealthChange, Machine, Registration, Reply};
use hub_core::delivery::RetryPolicy;
use hub_core::id::{NodeId, RequestId, ServiceName};
use hub_core::invariant;
use hub_core::port::{Entry, MemoryMachine, Submitted};
use hub_core::registry::{CheckKind, DeliverySettings, Health, HealthCheck};
use hub_core::time::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

use super::plain::{Is, Mode as PlainMode, Numbers, Plain, Say, Settings, Vote, verdict};

const T: i64 = 1_800_000_000_000;

/// How an epoch is chosen: as it is, one behind, or one ahead.
#[derive(Clone, Copy, Debug)]
enum Epoch {
    Now,
    Old,
    New,
}

#[derive(Clone, Debug)]
enum Step {
    Wait(i64),
    /// To the moment something is due.
    WaitDue,
    Report {
        node: u64,
        epoch: Epoch,
        say: Say,
        fit: bool,
        numbers: Numbers,
        failure: Option<i64>,
        wait: Option<i64>,
    },
    Advance(Epoch),
    Ask(u64, Epoch),
    Done {
        node: u64,
        holder: bool,
        epoch: Epoch,
        well: bool,
        wait: Option<i64>,
    },
    Order {
        epoch: Option<Epoch>,
        mode: Option<PlainMode>,
        lasts: Option<i64>,
    },
    Configure(Option<Epoch>, Option<u8>),
    Green,
    Remove(u64),
    Snapshot,
}

fn service() -> ServiceName {
    "s0".parse().unwrap()
}

fn settings(kind: u8) -> Settings {
    let reset = 10_000 * (i64::from(kind) + 1);
    Settings {
        reset,
        threshold: 3,
        window: 30_000,
        min_calls: 6,
        permille: 500,
        success: 2,
        max_open: 45_000,
    }
}

fn config(set: Settings) -> Config {
    Config {
        reset_timeout_s: u32::try_from(set.reset / 1_000).unwrap(),
        failure_threshold: set.threshold,
        window_s: u32::try_from(set.window / 1_000).unwrap(),
        min_calls: set.min_calls,
        failure_permille: u16::try_from(set.permille).unwrap(),
        slow_ms: None,
        slow_permille: 800,
        success_threshold: set.success,
        max_open_s: u32::try_from(set.max_open / 1_000).unwrap(),
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let epoch = || prop_oneof![12 => Just(Epoch::Now), 1 => Just(Epoch::Old), 1 => Just(Epoch::New)];
    let wait = || prop_oneof![4 => Just(None), 1 => (0_i64..100_000).prop_map(Some)];
    let age = || prop_oneof![0_i64..400, 0_i64..40_000];
    let say = prop_oneof![
        3 => (any::<bool>(), age()).prop_map(|(by_rate, since)| Say::Bad { by_rate, since }),
        2 => prop::option::weighted(0.8, age()).prop_map(Say::Good),
    ];
    let numbers =
        (0_u32..12, 0_u32..12, 0_u32..5).prop_map(|(calls, failures, row)| (calls, failures.min(calls), row));
    let mode = prop_oneof![
        Just(PlainMode::Auto),
        Just(PlainMode::Open),
        Just(PlainMode::Closed),
        Just(PlainMode::Observe),
    ];
    let report =
        (1_u64..5, epoch(), say, prop::bool::weighted(0.8), numbers, prop::option::of(age()), wait());
    let ordered =
        (prop::option::of(epoch()), prop::option::weighted(0.8, mode), prop::option::of(-5_i64..60_000));
    let step = prop_oneof![
        4 => prop_oneof![0_i64..300, 0_i64..20_000, 0_i64..200_000].prop_map(Step::Wait),
        3 => Just(Step::WaitDue),
        12 => report.prop_map(|(node, epoch, say, fit, numbers, failure, wait)| {
            Step::Report { node, epoch, say, fit, numbers, failure, wait }
        }),
        4 => epoch().prop_map(Step::Advance),
        5 => (1_u64..5, epoch()).prop_map(|(node, epoch)| Step::Ask(node, epoch)),
        6 => (1_u64..4, prop::bool::weighted(0.8), epoch(), prop::bool::weighted(0.7), wait())
            .prop_map(|(node, holder, epoch, well, wait)| Step::Done { node, holder, epoch, well, wait }),
        2 => ordered.prop_map(|(epoch, mode, lasts)| Step::Order { epoch, mode, lasts }),
        1 => (prop::option::of(epoch()), prop::option::of(0_u8..3)).prop_map(|(epoch, kind)| Step::Configure(epoch, kind)),
        1 => Just(Step::Green),
        1 => Just(Step::Snapshot),
        1 => (1_u64..9).prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 1..100)
}

/// Machine and model side by side. Index and time are the entry's.
struct Pair {
    machine: Machine,
    plain: Plain,
    members: Vec<u64>,
    index: u64,
    now: i64,
    tamper: fn(&mut BreakerCommand, &Record),
}

impl Pair {
    fn new(tamper: fn(&mut BreakerCommand, &Record)) -> Self {
        let mut pair = Self {
            machine: Machine::default(),
            plain: Plain::new(),
            members: vec![1, 2, 3],
            index: 0,
            now: T,
            tamper,
        };
        for number in 1..4 {
            pair.apply(Command::Admit {
                node: None,
                incarnation: number,
                raft_addr: "n:1".into(),
                rest_url: "http://n:8200".into(),
                version: "1".into(),
            });
        }
        pair.apply(Command::Register(Box::new(Registration {
            name: service(),
            version: None,
            instances: vec![("i0".parse().unwrap(), "http://10.0.0.1:9000".into(), 1)],
            delivery: DeliverySettings::default(),
            retry: RetryPolicy::default(),
            health_check: HealthCheck { kind: CheckKind::Http, ..HealthCheck::default() },
            message_types: Vec::new(),
            metadata: None,
            tags: Vec::new(),
            fresh_secret: "whsec_000000000000000000000000".into(),
            if_revision: None,
        })));
        pair.apply(Command::Breaker(BreakerCommand::Defaults(config(settings(0)))));
        pair
    }

    fn apply(&mut self, mut command: Command) -> Reply {
        if let Command::Breaker(breaker) = &mut command {
            (self.tamper)(breaker, &self.record());
        }
        self.index += 1;
        let commands = vec![Submitted { request: RequestId(Uuid::nil()), command }];
        let now = Timestamp::from_millis(self.now);
        let replies = self.machine.apply(&Entry { index: self.index, term: 1, now, commands });
        replies.into_iter().next().unwrap()
    }

    fn breaker(&mut self, command: BreakerCommand) -> Reply {
        self.apply(Command::Breaker(command))
    }

    fn record(&self) -> Record {
        self.machine.state().breakers.get(&service()).map(|record| (**record).clone()).unwrap_or_default()
    }

    fn epoch(&self, epoch: Epoch) -> u64 {
        match epoch {
            Epoch::Now => self.plain.epoch,
            Epoch::Old => self.plain.epoch.saturating_sub(1),
            Epoch::New => self.plain.epoch + 1,
        }
    }

    fn due(&self) -> Option<i64> {
        let own = match &self.plain.is {
            Is::Closed { decide, .. } => *decide,
            Is::Open { retry, .. } => Some(retry.0),
            Is::Half { until, .. } => Some(*until),
        };
        own.into_iter().chain(self.plain.until).filter(|due| *due > self.now).min()
    }

    /// `(what the machine did, what the model did)`.
    fn step(&mut self, step: &Step) -> (bool, bool) {
        let (defaults, now) = (settings(0), self.now);
        match step.clone() {
            Step::Wait(millis) => self.now += millis,
            Step::WaitDue => self.now = self.due().unwrap_or(self.now),
            Step::Snapshot => self.machine = Machine::decode(self.machine.encode().into()).unwrap(),
            Step::Report { node, epoch, say, fit, numbers, failure, wait } => {
                return self.report(node, epoch, say, fit, numbers, failure, wait);
            }
            Step::Advance(epoch) => {
                let epoch = self.epoch(epoch);
                let reply = self.breaker(BreakerCommand::Advance(vec![(service(), epoch)]));
                return (reply == Reply::Changed(1), self.plain.advances(defaults, now, epoch));
            }
            Step::Ask(node, epoch) => {
                let epoch = self.epoch(epoch);
                let ask = BreakerCommand::AskProbe { service: service(), node: NodeId(node), epoch };
                let granted = matches!(self.breaker(ask), Reply::Breaker(_));
                let member = self.members.contains(&node);
                return (granted, member && self.plain.asked(defaults, now, node, epoch));
            }
            Step::Done { node, holder, epoch, well, wait } => {
                let node = match self.plain.is {
                    Is::Half { node, .. } if holder => node,
                    _ => node,
                };
                let epoch = self.epoch(epoch);
                let retry_after_ms = wait.map(|wait| u64::try_from(wait).unwrap());
                let outcome = if well { Outcome::Succeeded } else { Outcome::Failed { retry_after_ms } };
                let done =
                    BreakerCommand::ProbeDone { service: service(), node: NodeId(node), epoch, outcome };
                let took = matches!(self.breaker(done), Reply::Breaker(_));
                return (took, self.plain.probed((defaults, now), node, epoch, well, wait));
            }
            Step::Order { epoch, mode, lasts } => {
                let epoch = epoch.map(|epoch| self.epoch(epoch));
                let until = lasts.map(|lasts| Timestamp::from_millis(now + lasts));
                let change = mode.map_or(BreakerChange::Reset, |mode| BreakerChange::Mode {
                    mode: real_mode(mode),
                    until,
                });
                return (self.order(epoch, change), self.plain.ordered((defaults, now), epoch, mode, lasts));
            }
            Step::Configure(epoch, kind) => {
                let epoch = epoch.map(|epoch| self.epoch(epoch));
                let own = kind.map(settings);
                let took = self.order(epoch, BreakerChange::Configure(own.map(config)));
                return (took, self.plain.configured((defaults, now), epoch, own));
            }
            Step::Green => self.green(),
            Step::Remove(node) => self.remove(node),
        }
        (true, true)
    }

    fn green(&mut self) {
        for health in [Health::Critical, Health::Passing] {
            let (service, instance) = (service(), "i0".parse().unwrap());
            let url = "http://10.0.0.1:9000".into();
            self.apply(Command::SetHealth(vec![HealthChange { service, instance, url, health }]));
        }
        self.plain.turned_green(self.now);
    }

    fn remove(&mut self, node: u64) {
        if self.members.len() > 2 && self.members.contains(&node) {
            self.members.retain(|member| *member != node);
            self.apply(Command::Remove { node: NodeId(node) });
            self.plain.lost(node, self.now);
        }
    }

    fn order(&mut self, if_epoch: Option<u64>, change: BreakerChange) -> bool {
        let order = Order { actor: "ops".into(), reason: Some("test".into()), if_epoch };
        matches!(self.breaker(BreakerCommand::Order { service: service(), order, change }), Reply::Breaker(_))
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one step")]
    fn report(
        &mut self,
        node: u64,
        epoch: Epoch,
        say: Say,
        fit: bool,
        numbers: Numbers,
        failure: Option<i64>,
        wait: Option<i64>,
    ) -> (bool, bool) {
        let (defaults, now) = (settings(0), self.now);
        let set = self.plain.own.unwrap_or(defaults);
        let say = match (say, verdict(numbers, set)) {
            (Say::Bad { since, .. }, Some(by_rate)) if fit => Say::Bad { by_rate, since },
            (say, _) => say,
        };
        let age = |age: i64| u64::try_from(age).unwrap();
        let (stand, success) = match say {
            Say::Bad { by_rate, since } => {
                let cause = if by_rate { Cause::FailureRate } else { Cause::Consecutive };
                (Stand::Unhealthy { cause, since: age(since) }, None)
            }
            Say::Good(success) => (Stand::Healthy { success: success.map(age) }, success),
        };
        let (calls, failures, consecutive) = numbers;
        let report = Report {
            service: service(),
            epoch: self.epoch(epoch),
            stand,
            counts: Counts { calls, failures, slow: 0, consecutive },
            success_age_ms: success.map(age),
            failure_age_ms: failure.map(age),
            retry_after_ms: wait.map(age),
        };
        let epoch = report.epoch;
        let reply = self.breaker(BreakerCommand::Reports { node: NodeId(node), reports: vec![report] });
        let heard = (say, numbers, (success, failure), wait);
        let nodes = self.members.len();
        let expected =
            self.members.contains(&node) && self.plain.hears((defaults, now, nodes), node, epoch, heard);
        (reply == Reply::Changed(1), expected)
    }

    /// Takes over the machine's choice of `retry_at` if it is within its bounds, and compares all.
    fn compare(&mut self) -> Result<(), String> {
        let record = self.record();
        if let (Is::Open { retry, .. }, Phase::Open { retry_at, .. }) = (&mut self.plain.is, &record.phase) {
            let chosen = retry_at.as_millis();
            if !(retry.0..=retry.1).contains(&chosen) {
                return Err(format!("retry at {chosen}, expected {retry:?}"));
            }
            *retry = (chosen, chosen);
        }
        let seen = plain(&record);
        if seen != self.plain {
            return Err(format!("is {seen:?}, expected {:?}", self.plain));
        }
        if record.due_at().is_some_and(|due| due.as_millis() <= self.now) != self.plain.is_due(self.now) {
            return Err(format!("due at {:?}", record.due_at()));
        }
        invariant::control(&self.machine)
    }
}

fn real_mode(mode: PlainMode) -> Mode {
    match mode {
        PlainMode::Auto => Mode::Auto,
        PlainMode::Open => Mode::ForcedOpen,
        PlainMode::Closed => Mode::ForcedClosed,
        PlainMode::Observe => Mode::Observe,
    }
}

fn plain(record: &Record) -> Plain {
    let millis = |moment: Option<Timestamp>| moment.map(Timestamp::as_millis);
    let mode = match record.mode {
        Mode::Auto => PlainMode::Auto,
        Mode::ForcedOpen => PlainMode::Open,
        Mode::ForcedClosed => PlainMode::Closed,
        Mode::Observe => PlainMode::Observe,
    };
    let say = |stand: Stand<Timestamp>| match stand {
        Stand::Unhealthy { cause, since } => {
            Say::Bad { by_rate: cause == Cause::FailureRate, since: since.as_millis() }
        }
        Stand::Healthy { success } => Say::Good(millis(success)),
    };
    let is = match &record.phase {
        Phase::Closed(closed) => Is::Closed {
            votes: closed
                .votes
                .iter()
                .map(|(node, vote)| {
                    let numbers = (vote.counts.calls, vote.counts.failures, vote.counts.consecutive);
                    let (at, asked) = (vote.at.as_millis(), millis(vote.asked_until));
                    (node.0, Vote { at, say: say(vote.stand), numbers, asked })
                })
                .collect(),
            decide: millis(closed.decide_at),
            healthy: millis(closed.healthy_since),
        },
        Phase::Open { opened_at, retry_at, asked_until } => {
            let retry = retry_at.as_millis();
            Is::Open { opened: opened_at.as_millis(), retry: (retry, retry), asked: millis(*asked_until) }
        }
        Phase::HalfOpen { opened_at, probe } => Is::Half {
            opened: opened_at.as_millis(),
            node: probe.node.0,
            begin: probe.begin_before.as_millis(),
            until: probe.lease_until.as_millis(),
        },
    };
    let own = record.config.map(|config| Settings {
        reset: i64::from(config.reset_timeout_s) * 1_000,
        threshold: config.failure_threshold,
        window: i64::from(config.window_s) * 1_000,
        min_calls: config.min_calls,
        permille: config.failure_permille.into(),
        success: config.success_threshold,
        max_open: i64::from(config.max_open_s) * 1_000,
    });
    Plain {
        epoch: record.epoch,
        is,
        mode,
        until: millis(record.mode_until),
        own,
        trips: record.trip_count,
        successes: record.successes,
        failures: record.failure_count,
        seen: (millis(record.last_success), millis(record.last_failure)),
        closed_epoch: record.closed_epoch,
        log: record.transitions.iter().map(|transition| transition.epoch).collect(),
    }
}

fn run(steps: &[Step], tamper: fn(&mut BreakerCommand, &Record)) -> Result<(), String> {
    let mut pair = Pair::new(tamper);
    for step in steps {
        let before = pair.record();
        let (did, expected) = pair.step(step);
        let fail = |problem: String| format!("{step:?} on {before:?}: {problem}");
        if did != expected {
            return Err(fail(format!("took effect: {did}, expected {expected}")));
        }
        pair.compare().map_err(fail)?;
        invariant::breaker_step(&before, &pair.record()).map_err(fail)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn does_what_the_model_does(steps in steps()) {
        run(&steps, |_, _| {}).map_err(TestCaseError::fail)?;
    }
}

fn fails(node: u64) -> Step {
    let (say, numbers) = (Say::Bad { by_rate: false, since: 100 }, (3, 3, 3));
    Step::Report { node, epoch: Epoch::Now, say, fit: true, numbers, failure: Some(0), wait: None }
}

#[test]
fn an_outage_runs_through_every_state() {
    let done = |well| Step::Done { node: 1, holder: true, epoch: Epoch::Now, well, wait: None };
    let mut pair = Pair::new(|_, _| {});
    let mut states = Vec::new();
    let half = || [Step::WaitDue, Step::Ask(2, Epoch::Now)];
    let steps = [fails(1), Step::WaitDue, Step::Advance(Epoch::Now)]
        .into_iter()
        .chain(half())
        .chain([done(false)])
        .chain(half())
        .chain([done(true), done(true)]);
    for step in steps {
        assert_eq!(pair.step(&step), (true, true), "{step:?}");
        pair.compare().unwrap();
        states.push(pair.record().state());
    }
    states.dedup();
    use BreakerState::{Closed, HalfOpen, Open};
    assert_eq!(states, [Closed, Open, HalfOpen, Open, HalfOpen, Closed]);
    assert_eq!(pair.record().trips_at(&config(settings(0)), Timestamp::from_millis(pair.now + 10_000)), 1);
}

#[test]
fn the_model_catches_a_machine_that_ignores_epochs() {
    let stale = Step::Report {
        node: 1,
        epoch: Epoch::Old,
        say: Say::Bad { by_rate: false, since: 100 },
        fit: true,
        numbers: (3, 3, 3),
        failure: None,
        wait: None,
    };
    let steps = [Step::Configure(None, Some(1)), stale];
    assert_eq!(run(&steps, |_, _| {}), Ok(()));
    let ignores = |command: &mut BreakerCommand, record: &Record| {
        if let BreakerCommand::Reports { reports, .. } = command {
            reports.iter_mut().for_each(|report| report.epoch = record.epoch);
        }
    };
    assert!(run(&steps, ignores).is_err());
}

#[test]
fn the_model_catches_a_machine_that_trusts_any_reporter_of_a_probe() {
    let stranger = Step::Done { node: 3, holder: false, epoch: Epoch::Now, well: true, wait: None };
    let steps = [fails(1), fails(2), Step::WaitDue, Step::Ask(1, Epoch::Now), stranger];
    assert_eq!(run(&steps, |_, _| {}), Ok(()));
    let trusts = |command: &mut BreakerCommand, record: &Record| {
        if let (BreakerCommand::ProbeDone { node, .. }, Phase::HalfOpen { probe, .. }) =
            (command, &record.phase)
        {
            *node = probe.node;
        }
    };
    assert!(run(&steps, trusts).is_err());
}
