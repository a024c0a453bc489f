//! Nodes with their own windows and one record between them, in steps of a millisecond: how fast an outage is known, what
//! it costs in log entries, and that one node's bad network stays its own.

use std::time::Duration;

use hub_core::breaker::{
    Call, Config, Context, Gate, Local, Outcome, Pass, Record, Report, Reporting, State,
};
use hub_core::delivery::Evidence;
use hub_core::id::{NodeId, ServiceName};
use hub_core::invariant;
use hub_core::time::Timestamp;
use proptest::prelude::*;

const T: i64 = 1_800_000_000_000;
const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
struct Setup {
    /// For each node: milliseconds between two calls (`None`: no traffic), and until a proposal of it is applied.
    nodes: Vec<(Option<i64>, i64)>,
    /// How long a call takes.
    call: i64,
    /// Until a node sees what was applied.
    lag: i64,
}

#[derive(Clone, Debug)]
enum Proposal {
    Report(Report),
    Advance(u64),
    Ask(u64),
    Done(u64, Outcome),
}

struct Node {
    id: NodeId,
    period: Option<i64>,
    latency: i64,
    local: Local,
    seen: Record,
    next_call: i64,
    under_way: Vec<(i64, Pass)>,
    calls: u32,
}

struct World {
    setup: Setup,
    config: Config,
    service: ServiceName,
    record: Record,
    nodes: Vec<Node>,
    log: Vec<(i64, usize, Proposal)>,
    views: Vec<(i64, Record)>,
    now: i64,
    entries: usize,
    advanced: Option<(u64, i64)>,
    /// Nodes whose calls fail.
    broken: Vec<bool>,
    first_bad: Option<i64>,
    probes: u32,
}

impl World {
    fn new(setup: Setup) -> Self {
        let config = Config { reset_timeout_s: 2, max_open_s: 4, ..Config::default() };
        let node = |(number, (period, latency)): (u64, &(Option<i64>, i64))| Node {
            id: NodeId(number),
            period: *period,
            latency: *latency,
            local: Local::default(),
            seen: Record::default(),
            next_call: T + i64::try_from(number).unwrap(),
            under_way: Vec::new(),
            calls: 0,
        };
        let nodes: Vec<Node> = (1..).zip(&setup.nodes).map(node).collect();
        Self {
            config,
            service: "s0".parse().unwrap(),
            record: Record::default(),
            broken: vec![false; nodes.len()],
            nodes,
            log: Vec::new(),
            views: Vec::new(),
            now: T,
            entries: 0,
            advanced: None,
            first_bad: None,
            probes: 0,
            setup,
        }
    }

    fn clock(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    fn step(&mut self) {
        self.now += 1;
        self.apply();
        while self.views.first().is_some_and(|(at, _)| *at <= self.now) {
            let (_, seen) = self.views.remove(0);
            for node in &mut self.nodes {
                node.local.follow(Some(&seen));
                node.seen = seen.clone();
            }
        }
        for at in 0..self.nodes.len() {
            self.end_calls(at);
            self.begin_calls(at);
            self.tell(at);
        }
        // The leader's timer, on the leader's own state: once for each time that is due.
        let due = self.record.due_at().map(|due| (self.record.epoch, due.as_millis()));
        if let Some((epoch, at)) = due
            && at <= self.now
            && self.advanced != due
        {
            self.advanced = due;
            self.log.push((self.now + self.nodes[0].latency, 0, Proposal::Advance(epoch)));
        }
    }

    fn apply(&mut self) {
        let (due, later): (Vec<_>, Vec<_>) = self.log.drain(..).partition(|(at, ..)| *at <= self.now);
        self.log = later;
        for (_, from, proposal) in due {
            let cx = Context {
                service: &self.service,
                clock: Timestamp::from_millis(self.now),
                nodes: self.nodes.len(),
                delivery_timeout: TIMEOUT,
                defaults: &self.config,
            };
            let node = self.nodes[from].id;
            let before = self.record.clone();
            self.entries += 1;
            match proposal {
                Proposal::Report(report) => drop(self.record.report(&cx, node, &report)),
                Proposal::Advance(epoch) => drop(self.record.advance(&cx, epoch)),
                Proposal::Ask(epoch) => drop(self.record.ask_probe(&cx, node, epoch)),
                Proposal::Done(epoch, outcome) => drop(self.record.probe_done(&cx, node, epoch, outcome)),
            }
            invariant::breaker_step(&before, &self.record).unwrap();
            invariant::breaker(&self.record, cx.clock).unwrap();
            self.views.push((self.now + self.setup.lag, self.record.clone()));
        }
    }

    fn end_calls(&mut self, at: usize) {
        let (now, clock, broken) = (self.now, self.clock(), self.broken[at]);
        let node = &mut self.nodes[at];
        let (ended, going): (Vec<_>, Vec<_>) = node.under_way.drain(..).partition(|(end, _)| *end <= now);
        node.under_way = going;
        for (_, pass) in ended {
            let evidence = if broken { Evidence::Failure } else { Evidence::Success };
            let call = Call { evidence, took: Duration::from_millis(1), retry_after: None };
            if broken {
                self.first_bad = self.first_bad.or(Some(now));
            }
            let finished = node.local.finish(pass, &call, &self.config, clock);
            if let Some((epoch, outcome)) = finished.probed {
                self.log.push((now + node.latency, at, Proposal::Done(epoch, outcome)));
            }
        }
    }

    fn begin_calls(&mut self, at: usize) {
        let clock = self.clock();
        let node = &mut self.nodes[at];
        let Some(period) = node.period.filter(|_| node.next_call <= self.now) else { return };
        match node.local.gate(Some(&node.seen), node.id, true, &self.config, clock) {
            Gate::Go(pass) => {
                node.local.begin(pass, &self.config, clock);
                node.under_way.push((self.now + self.setup.call, pass));
                node.calls += 1;
                self.probes += u32::from(matches!(pass, Pass::Probe { .. }));
                node.next_call = self.now + period;
            }
            Gate::Ask { epoch } => {
                node.local.asked(clock);
                self.log.push((self.now + node.latency, at, Proposal::Ask(epoch)));
            }
            Gate::ParkedUntil(until) => node.next_call = until.as_millis().min(self.now + period),
        }
    }

    fn tell(&mut self, at: usize) {
        let clock = self.clock();
        let node = &mut self.nodes[at];
        let said = node.local.report(&self.service, Some(&node.seen), node.id, &self.config, clock);
        if let Reporting::Due(report) = said {
            node.local.reported(clock);
            self.log.push((self.now + node.latency, at, Proposal::Report(report)));
        }
    }

    fn run(&mut self, millis: i64) {
        for _ in 0..millis {
            self.step();
            let probing = self.nodes.iter().flat_map(|node| &node.under_way);
            let probing = probing.filter(|(_, pass)| matches!(pass, Pass::Probe { .. })).count();
            assert!(probing <= 1, "{probing} probes at a time");
        }
    }

    /// Until every node sees this state; how long it took.
    fn run_until(&mut self, state: State, most: i64) -> Option<i64> {
        let began = self.now;
        while self.now - began <= most {
            if self.nodes.iter().all(|node| node.seen.state() == state) {
                return Some(self.now - began);
            }
            self.run(1);
        }
        None
    }
}

fn setup() -> impl Strategy<Value = Setup> {
    let node = (prop::option::weighted(0.8, 2_i64..20), 1_i64..25);
    (prop::collection::vec(node, 1..6), 1_i64..15, 1_i64..10)
        .prop_map(|(nodes, call, lag)| Setup { nodes, call, lag })
        .prop_filter("somebody has traffic", |setup| setup.nodes.iter().any(|(period, _)| period.is_some()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// An outage is known everywhere in time, for few entries; it ends with probes, and deliveries flow again.
    #[test]
    fn an_outage_is_known_fast_and_cheaply_and_ends(setup in setup(), before in 1_i64..400) {
        let mut world = World::new(setup);
        world.run(before);
        prop_assert_eq!(world.entries, 0, "well targets cost nothing");
        world.broken.fill(true);
        let known = world.run_until(State::Open, 2_000);
        prop_assert!(known.is_some(), "never opened");
        let took = world.now - world.first_bad.unwrap();
        prop_assert!(took <= 300 + 250, "known after {took} ms");
        // Reports that were on their way when it opened are told before the trip is paid for.
        world.run(100);
        prop_assert!(world.entries <= world.nodes.len() + 1, "{} entries", world.entries);
        // A long outage: probes fail, one at a time, and nothing else goes out.
        let calls = |world: &World| world.nodes.iter().map(|node| node.calls).sum::<u32>();
        let (sent, probes) = (calls(&world), world.probes);
        world.run(8_000);
        prop_assert_eq!(calls(&world) - sent, world.probes - probes, "only probes go out");
        prop_assert!((1..=4).contains(&(world.probes - probes)), "{} probes", world.probes - probes);
        world.broken.fill(false);
        let probes = world.probes;
        prop_assert!(world.run_until(State::Closed, 6_000).is_some(), "never closed");
        prop_assert_eq!(world.probes - probes, 2, "closed by as many deliveries as it takes");
        // What was on its way when it closed comes to nothing.
        world.run(100);
        let entries = world.entries;
        world.run(3_000);
        prop_assert_eq!(world.entries, entries, "well targets cost nothing");
        for node in world.nodes.iter().filter(|node| node.period.is_some()) {
            prop_assert!(node.local.limit().is_none_or(|limit| limit > 100), "slow start goes on");
        }
    }

    /// The way of one node is cut: it stops by itself, the breaker stays closed, and the others carry the load.
    #[test]
    fn one_bad_network_stays_its_own(setup in setup(), which in any::<prop::sample::Index>(), before in 1_i64..400) {
        let traffic = setup.nodes.iter().filter(|(period, _)| period.is_some()).count();
        prop_assume!(traffic >= 2);
        let bad = which.index(setup.nodes.len());
        prop_assume!(setup.nodes[bad].0.is_some());
        let mut world = World::new(setup);
        world.run(before);
        world.broken[bad] = true;
        let calls: Vec<u32> = world.nodes.iter().map(|node| node.calls).collect();
        for _ in 0..7_000 {
            world.run(1);
            prop_assert_eq!(world.record.state(), State::Closed);
        }
        prop_assert!(world.nodes[bad].local.latch().is_some());
        for (node, before) in world.nodes.iter().zip(&calls) {
            let sent = node.calls - before;
            match node.period {
                _ if node.id == world.nodes[bad].id => prop_assert!(sent < 30, "{sent} calls into the void"),
                Some(period) => prop_assert!(i64::from(sent) >= 6_000 / period, "{sent} calls"),
                None => prop_assert_eq!(sent, 0),
            }
        }
        // It comes back by itself, and takes its word back.
        world.broken[bad] = false;
        world.run(3_500);
        prop_assert!(world.nodes[bad].local.latch().is_none());
        prop_assert!(world.nodes[bad].seen.due_at().is_none());
        prop_assert!(!world.record.has_vote_of(world.nodes[bad].id) || world.record.trip_count == 0);
    }
}
