//! Probes: two nodes that both hold due messages, on a breaker that is open. Proposals may be late, never
//! arrive, or be repeated; the
//! leader may change to one whose clock is two seconds ahead; an operator may hold the breaker open and let it go.

use std::time::Duration;

use hub_core::breaker::{Call, Gate, Local, Pass, Phase, Probe, Record, State};
use hub_core::delivery::Evidence;
use hub_core::id::NodeId;
use hub_core::invariant;
use stateright::{Model, Property};

use crate::machine::{Command, Entry, Mistake, Replica, at, config};

pub(crate) const ONE_PROBE: &str = "at most one probe at a time";
pub(crate) const SOUND: &str = "open has a time to retry, half-open has an end of its lease";
pub(crate) const FORCED_STANDS: &str = "a forced mode never moves by traffic";
pub(crate) const CLOSED_BY_DELIVERIES: &str = "closed by as many deliveries as it takes";
pub(crate) const REPLICAS_AGREE: &str = "equal state at equal index";
pub(crate) const STALE_IS_NOTHING: &str = "a stale epoch changes nothing";

const NODES: usize = 2;
/// Bounds of what is explored.
const LAST_SECOND: i64 = 9;
const MOST_ENTRIES: usize = 6;
const MOST_IN_FLIGHT: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    second: i64,
    /// Node 0's clock as leader is right, node 1's two seconds ahead.
    leader: usize,
    /// Entries that not every replica has applied, and how many there were in all.
    log: Vec<Entry>,
    entries: usize,
    replicas: [Replica; NODES],
    locals: [Local; NODES],
    /// Proposals that are not in the log yet, and whether each was sent again already.
    flight: Vec<(Command, bool)>,
    /// Deliveries under way: who, with which lease, and when they are over at the latest.
    under_way: Vec<(usize, u64, i64)>,
    /// Probes that the target answered well.
    answered: u32,
    holds: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Tick(i64),
    Elect(usize),
    Commit(usize),
    CommitAndRepeat(usize),
    Apply(usize),
    Try(usize),
    End(usize, bool),
    Timer,
    Hold,
    Release,
}

pub(crate) struct Probes {
    mistake: Mistake,
}

impl Probes {
    pub(crate) const fn of(mistake: Mistake) -> Self {
        Self { mistake }
    }

    fn gate(&self, world: &World, node: usize) -> Gate {
        let record = &world.replicas[node].record;
        world.locals[node].gate(Some(record), id(node), true, &config(), at(world.second * 1_000))
    }

    fn append(&self, world: &mut World, command: Command) {
        let ahead = if world.leader == 1 { 2_000 } else { 0 };
        world.log.push(Entry { now: world.second * 1_000 + ahead, command });
        world.entries += 1;
        self.catch_up(world, world.leader);
    }

    /// What all have applied is dropped from the log: worlds that differ in it only are one.
    fn catch_up(&self, world: &mut World, node: usize) {
        let own_time = world.second * 1_000 + i64::try_from(node).unwrap() * 7;
        while let Some(entry) = world.log.get(world.replicas[node].applied) {
            world.replicas[node].apply(entry, NODES, self.mistake, Some(own_time));
        }
        world.locals[node].follow(Some(&world.replicas[node].record));
        let everywhere = world.replicas.iter().map(|replica| replica.applied).min().unwrap();
        world.log.drain(..everywhere);
        world.replicas.iter_mut().for_each(|replica| replica.applied -= everywhere);
    }
}

fn id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

fn open() -> Record {
    Record {
        epoch: 3,
        phase: Phase::Open { opened_at: at(-2_000), retry_at: at(0), asked_until: None },
        trip_count: 1,
        ..Record::default()
    }
}

impl Model for Probes {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let after = |answered: u32| {
            let record = Record { successes: answered, ..open() };
            World {
                second: 0,
                leader: 0,
                log: Vec::new(),
                entries: 0,
                replicas: [Replica::new(record.clone()), Replica::new(record)],
                locals: Default::default(),
                flight: Vec::new(),
                under_way: Vec::new(),
                answered,
                holds: 0,
            }
        };
        let mut leased = after(0);
        for replica in &mut leased.replicas {
            let probe =
                Probe { node: id(0), granted_at: at(0), begin_before: at(3_000), lease_until: at(7_000) };
            replica.record.epoch = 4;
            replica.record.phase = Phase::HalfOpen { opened_at: at(-2_000), probe };
        }
        vec![after(0), after(1), leased]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        let next_end = world.under_way.iter().map(|(_, _, end)| *end).min();
        for seconds in [1, 6] {
            let free = next_end.is_none_or(|end| world.second + seconds < end);
            if free && world.second + seconds <= LAST_SECOND {
                steps.push(Step::Tick(seconds));
            }
        }
        steps.push(Step::Elect(1 - world.leader));
        let room = world.entries < MOST_ENTRIES;
        for at in 0..world.flight.len() {
            if room {
                steps.push(Step::Commit(at));
                if !world.flight[at].1 {
                    steps.push(Step::CommitAndRepeat(at));
                }
            }
        }
        for node in 0..NODES {
            if world.replicas[node].applied < world.log.len() {
                steps.push(Step::Apply(node));
            }
            let free = world.flight.len() < MOST_IN_FLIGHT;
            let goes = match self.gate(world, node) {
                Gate::Go(Pass::Probe { .. }) => true,
                Gate::Ask { .. } => free,
                _ => false,
            };
            if goes {
                steps.push(Step::Try(node));
            }
        }
        for at in 0..world.under_way.len() {
            steps.extend([Step::End(at, true), Step::End(at, false)]);
        }
        if room {
            let due = world.replicas[world.leader].record.due_at();
            if due.is_some_and(|due| due <= at(world.second * 1_000)) {
                steps.push(Step::Timer);
            }
            steps.extend((world.holds == 0).then_some(Step::Hold));
            steps.extend((world.holds == 1).then_some(Step::Release));
        }
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        match step {
            Step::Tick(seconds) => world.second += seconds,
            Step::Elect(node) => {
                world.leader = node;
                self.catch_up(&mut world, node);
            }
            Step::Commit(at) => {
                let (command, _) = world.flight.remove(at);
                self.append(&mut world, command);
            }
            Step::CommitAndRepeat(at) => {
                world.flight[at].1 = true;
                let command = world.flight[at].0.clone();
                self.append(&mut world, command);
            }
            Step::Apply(node) => self.catch_up(&mut world, node),
            Step::Try(node) => self.tries(&mut world, node),
            Step::End(at, well) => ends(&mut world, at, well),
            Step::Timer => {
                let epoch = world.replicas[world.leader].record.epoch;
                self.append(&mut world, Command::Advance(epoch));
            }
            Step::Hold => {
                world.holds = 1;
                let until = (world.second + 4) * 1_000;
                self.append(&mut world, Command::Hold(Some(until)));
            }
            Step::Release => {
                world.holds = 2;
                self.append(&mut world, Command::Hold(None));
            }
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_PROBE, |_, world: &World| world.under_way.len() <= 1),
            Property::always(SOUND, |_, world: &World| {
                world
                    .replicas
                    .iter()
                    .all(|replica| invariant::breaker(&replica.record, at(replica.clock)).is_ok())
            }),
            Property::always(FORCED_STANDS, |_, world: &World| {
                world.replicas.iter().all(|replica| !replica.seen.forced_moved)
            }),
            Property::always(CLOSED_BY_DELIVERIES, |_, world: &World| {
                let closed = |replica: &Replica| replica.record.state() == State::Closed;
                !world.replicas.iter().any(closed) || world.answered >= config().success_threshold
            }),
            Property::always(REPLICAS_AGREE, |_, world: &World| {
                let [one, other] = &world.replicas;
                one.applied != other.applied || one.record == other.record
            }),
            Property::always(STALE_IS_NOTHING, |_, world: &World| {
                world.replicas.iter().all(|replica| !replica.seen.stale_moved)
            }),
            Property::sometimes("it closes", |_, world: &World| {
                world.replicas.iter().any(|replica| replica.record.state() == State::Closed)
            }),
            Property::sometimes(
                "the other node gets the lease of one that never reported",
                |_, world: &World| {
                    let second = |replica: &Replica| {
                        matches!(&replica.record.phase, Phase::HalfOpen { probe, .. } if probe.node == id(1))
                            && replica.record.trip_count == 1
                            && replica.record.epoch >= 6
                    };
                    world.replicas.iter().any(second)
                },
            ),
        ]
    }
}

impl Probes {
    fn tries(&self, world: &mut World, node: usize) {
        let now = at(world.second * 1_000);
        match self.gate(world, node) {
            Gate::Go(pass @ Pass::Probe { epoch }) => {
                world.locals[node].begin(pass, &config(), now);
                // The delivery's limit is two seconds.
                world.under_way.push((node, epoch, world.second + 2));
            }
            Gate::Ask { epoch } => {
                world.locals[node].asked(now);
                world.flight.push((Command::Ask(id(node), epoch), false));
            }
            _ => {}
        }
    }
}

fn ends(world: &mut World, which: usize, well: bool) {
    let (node, epoch, _) = world.under_way.remove(which);
    let evidence = if well { Evidence::Success } else { Evidence::Failure };
    let call = Call { evidence, took: Duration::ZERO, retry_after: None };
    let now = at(world.second * 1_000);
    let finished = world.locals[node].finish(Pass::Probe { epoch }, &call, &config(), now);
    world.answered += u32::from(well);
    if let Some((epoch, outcome)) = finished.probed
        && world.flight.len() < MOST_IN_FLIGHT
    {
        world.flight.push((Command::Done(id(node), epoch, outcome), false));
    }
}
