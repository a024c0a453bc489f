//! Votes: three nodes, of which one has a bad network and sees failures, one sees successes, and one has no traffic. The first's words and
//! the leader's timer may be late or lost, the leader may change, and an operator may reset the breaker, so that words of an
//! older epoch arrive. What the second says is not lost: that proposals are made within the window is what
//! the contract rests on.

use hub_core::breaker::{Cause, Counts, Phase, Record, Report, Stand, State};
use hub_core::id::NodeId;
use hub_core::invariant;
use stateright::{Model, Property};

use crate::machine::{Command, Entry, Mistake, Replica, at};

pub(crate) const ONE_BAD_NETWORK: &str = "one node's bad network does not open the breaker for the others";
pub(crate) const STALE_IS_NOTHING: &str = "a stale epoch changes nothing";
const SOUND: &str = "sound, and every replica the same";

const NODES: usize = 3;
const BAD: usize = 0;
const WELL: usize = 1;
/// Bounds of what is explored; a tick is an eighth of a second.
const LAST_TICK: i64 = 6;
const TICK: i64 = 125;
const MOST_ENTRIES: usize = 7;
const MOST_IN_FLIGHT: usize = 3;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    tick: i64,
    leader: usize,
    log: Vec<Entry>,
    replicas: Vec<Replica>,
    flight: Vec<Command>,
    was_reset: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Tick,
    Elect(usize),
    Commit(usize),
    Lose(usize),
    Apply(usize),
    Accuse,
    TakeBack,
    Object,
    Timer,
    Reset,
}

pub(crate) struct Votes {
    mistake: Mistake,
}

impl Votes {
    pub(crate) const fn of(mistake: Mistake) -> Self {
        Self { mistake }
    }

    fn append(&self, world: &mut World, command: Command) {
        world.log.push(Entry { now: world.tick * TICK, command });
        self.catch_up(world, world.leader);
    }

    fn catch_up(&self, world: &mut World, node: usize) {
        while let Some(entry) = world.log.get(world.replicas[node].applied) {
            world.replicas[node].apply(entry, NODES, self.mistake, None);
        }
    }

    fn report(world: &World, node: usize, stand: Stand<u64>, counts: Counts) -> Command {
        let epoch = world.replicas[node].record.epoch;
        let report = Report {
            service: "s0".parse().unwrap(),
            epoch,
            stand,
            counts,
            success_age_ms: None,
            failure_age_ms: None,
            retry_after_ms: None,
        };
        Command::Report(id(node), report)
    }
}

fn id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

const fn is_objection(command: &Command) -> bool {
    matches!(command, Command::Report(_, Report { stand: Stand::Healthy { success: Some(_) }, .. }))
}

/// Whether the votes are being gathered, and whether this node's word on the newest accusation is there.
fn gathering(record: &Record, node: usize) -> (bool, bool) {
    let Phase::Closed(closed) = &record.phase else { return (false, false) };
    let newest = closed.votes.values().filter_map(|vote| match vote.stand {
        Stand::Unhealthy { since, .. } => Some(since),
        Stand::Healthy { .. } => None,
    });
    let newest = newest.max();
    let said = closed.votes.get(&id(node)).is_some_and(|vote| match vote.stand {
        Stand::Unhealthy { .. } => true,
        Stand::Healthy { success } => success >= newest,
    });
    (closed.decide_at.is_some(), said)
}

/// A healthy node that sees an accusation, has not answered it, and has no answer on its way.
fn must_object(world: &World, node: usize) -> bool {
    let record = &world.replicas[node].record;
    let (gathers, said) = gathering(record, node);
    let on_its_way = world.flight.iter().any(
        |command| matches!(command, Command::Report(from, report) if *from == id(node) && report.epoch == record.epoch),
    );
    node == WELL && gathers && !said && !on_its_way
}

impl Model for Votes {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let replicas = vec![Replica::new(Record::default()); NODES];
        vec![World { tick: 0, leader: 1, log: Vec::new(), replicas, flight: Vec::new(), was_reset: false }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        // What must be answered in the window is, before its end: nothing else waits for a tick.
        let current = |node: &Replica| node.applied == world.log.len();
        let pending = world.flight.iter().any(is_objection)
            || must_object(world, WELL)
            || gathering(&world.replicas[world.leader].record, BAD).0 && !current(&world.replicas[WELL]);
        if world.tick < LAST_TICK && !pending {
            steps.push(Step::Tick);
        }
        for node in 0..NODES {
            if node != world.leader {
                steps.push(Step::Elect(node));
            }
            if !current(&world.replicas[node]) {
                steps.push(Step::Apply(node));
            }
        }
        let room = world.log.len() < MOST_ENTRIES;
        for at in 0..world.flight.len() {
            if !is_objection(&world.flight[at]) {
                steps.push(Step::Lose(at));
            }
            if room {
                steps.push(Step::Commit(at));
            }
        }
        if world.flight.len() < MOST_IN_FLIGHT {
            if world.replicas[BAD].record.state() == State::Closed {
                steps.extend([Step::Accuse, Step::TakeBack]);
            }
            steps.extend(must_object(world, WELL).then_some(Step::Object));
        }
        let due = world.replicas[world.leader].record.due_at();
        if room && due.is_some_and(|due| due <= at(world.tick * TICK)) {
            steps.push(Step::Timer);
        }
        steps.extend((room && !world.was_reset).then_some(Step::Reset));
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        match step {
            Step::Tick => world.tick += 1,
            Step::Elect(node) => {
                world.leader = node;
                self.catch_up(&mut world, node);
            }
            Step::Commit(at) => {
                let command = world.flight.remove(at);
                self.append(&mut world, command);
            }
            Step::Lose(at) => drop(world.flight.remove(at)),
            Step::Apply(node) => self.catch_up(&mut world, node),
            Step::Accuse => {
                let counts = Counts { calls: 3, failures: 3, slow: 0, consecutive: 3 };
                let stand = Stand::Unhealthy { cause: Cause::Consecutive, since: 50 };
                let command = Self::report(&world, BAD, stand, counts);
                if !world.flight.contains(&command) {
                    world.flight.push(command);
                }
            }
            Step::TakeBack => {
                let said = gathering(&world.replicas[BAD].record, BAD).1;
                let stand = Stand::Healthy { success: None };
                let command = Self::report(&world, BAD, stand, Counts::default());
                if said && !world.flight.contains(&command) {
                    world.flight.push(command);
                }
            }
            Step::Object => {
                let counts = Counts { calls: 9, ..Counts::default() };
                let stand = Stand::Healthy { success: Some(0) };
                world.flight.push(Self::report(&world, WELL, stand, counts));
            }
            Step::Timer => {
                let epoch = world.replicas[world.leader].record.epoch;
                self.append(&mut world, Command::Advance(epoch));
            }
            Step::Reset => {
                world.was_reset = true;
                self.append(&mut world, Command::Reset);
            }
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_BAD_NETWORK, |_, world: &World| {
                world.replicas.iter().all(|replica| replica.record.trip_count == 0)
            }),
            Property::always(STALE_IS_NOTHING, |_, world: &World| {
                world.replicas.iter().all(|replica| !replica.seen.stale_moved)
            }),
            Property::always(SOUND, |_, world: &World| {
                let sound =
                    |replica: &Replica| invariant::breaker(&replica.record, at(replica.clock)).is_ok();
                let same = |one: &Replica| {
                    let equal = |other: &Replica| one.applied != other.applied || one.record == other.record;
                    world.replicas.iter().all(equal)
                };
                world.replicas.iter().all(|replica| sound(replica) && same(replica))
            }),
            Property::sometimes("the accusation is dismissed", |_, world: &World| {
                let dismissed = |replica: &Replica| {
                    let (gathers, said) = gathering(&replica.record, BAD);
                    said && !gathers
                };
                world.replicas.iter().any(dismissed)
            }),
        ]
    }
}
