//! Frozen shape of a breaker's whole record.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::breaker::{ConfigV1, CountsV1, ModeV1, ProbeV1, StandV1, StateV1, WhoV1, WhyV1};
use crate::breaker::{Closed, Phase, Record, Transition, Vote};
use crate::id::NodeId;
use crate::time::Timestamp;

#[derive(Serialize, Deserialize)]
struct VoteV1 {
    node: NodeId,
    at: Timestamp,
    stand: StandV1<Timestamp>,
    counts: CountsV1,
    asked_until: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
enum PhaseV1 {
    Closed { votes: Vec<VoteV1>, decide_at: Option<Timestamp>, healthy_since: Option<Timestamp> },
    Open { opened_at: Timestamp, retry_at: Timestamp, asked_until: Option<Timestamp> },
    HalfOpen { opened_at: Timestamp, probe: ProbeV1 },
}

#[derive(Serialize, Deserialize)]
struct TransitionV1 {
    at: Timestamp,
    epoch: u64,
    from: StateV1,
    to: StateV1,
    why: WhyV1,
    who: WhoV1,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RecordV1 {
    epoch: u64,
    phase: PhaseV1,
    mode: ModeV1,
    mode_until: Option<Timestamp>,
    actor: Option<Arc<str>>,
    reason: Option<Arc<str>>,
    config: Option<ConfigV1>,
    trip_count: u32,
    successes: u32,
    failure_count: u32,
    last_failure: Option<Timestamp>,
    last_success: Option<Timestamp>,
    closed_epoch: u64,
    transitions: Vec<TransitionV1>,
}

impl From<&Phase> for PhaseV1 {
    fn from(phase: &Phase) -> Self {
        let vote = |(node, vote): (&NodeId, &Vote)| VoteV1 {
            node: *node,
            at: vote.at,
            stand: vote.stand.into(),
            counts: vote.counts.into(),
            asked_until: vote.asked_until,
        };
        match phase {
            Phase::Closed(closed) => Self::Closed {
                votes: closed.votes.iter().map(vote).collect(),
                decide_at: closed.decide_at,
                healthy_since: closed.healthy_since,
            },
            Phase::Open { opened_at, retry_at, asked_until } => {
                Self::Open { opened_at: *opened_at, retry_at: *retry_at, asked_until: *asked_until }
            }
            Phase::HalfOpen { opened_at, probe } => {
                Self::HalfOpen { opened_at: *opened_at, probe: (*probe).into() }
            }
        }
    }
}

impl From<PhaseV1> for Phase {
    fn from(phase: PhaseV1) -> Self {
        let vote = |vote: VoteV1| {
            let (at, asked_until) = (vote.at, vote.asked_until);
            let held = Vote { at, stand: vote.stand.into(), counts: vote.counts.into(), asked_until };
            (vote.node, held)
        };
        match phase {
            PhaseV1::Closed { votes, decide_at, healthy_since } => {
                let votes = votes.into_iter().map(vote).collect();
                Self::Closed(Closed { votes, decide_at, healthy_since })
            }
            PhaseV1::Open { opened_at, retry_at, asked_until } => {
                Self::Open { opened_at, retry_at, asked_until }
            }
            PhaseV1::HalfOpen { opened_at, probe } => Self::HalfOpen { opened_at, probe: probe.into() },
        }
    }
}

impl From<&Transition> for TransitionV1 {
    fn from(transition: &Transition) -> Self {
        Self {
            at: transition.at,
            epoch: transition.epoch,
            from: transition.from.into(),
            to: transition.to.into(),
            why: transition.why.into(),
            who: transition.who.clone().into(),
        }
    }
}

impl From<TransitionV1> for Transition {
    fn from(transition: TransitionV1) -> Self {
        Self {
            at: transition.at,
            epoch: transition.epoch,
            from: transition.from.into(),
            to: transition.to.into(),
            why: transition.why.into(),
            who: transition.who.into(),
        }
    }
}

impl From<&Record> for RecordV1 {
    fn from(record: &Record) -> Self {
        Self {
            epoch: record.epoch,
            phase: (&record.phase).into(),
            mode: record.mode.into(),
            mode_until: record.mode_until,
            actor: record.actor.clone(),
            reason: record.reason.clone(),
            config: record.config.map(ConfigV1::from),
            trip_count: record.trip_count,
            successes: record.successes,
            failure_count: record.failure_count,
            last_failure: record.last_failure,
            last_success: record.last_success,
            closed_epoch: record.closed_epoch,
            transitions: record.transitions.iter().map(TransitionV1::from).collect(),
        }
    }
}

impl From<RecordV1> for Record {
    fn from(record: RecordV1) -> Self {
        Self {
            epoch: record.epoch,
            phase: record.phase.into(),
            mode: record.mode.into(),
            mode_until: record.mode_until,
            actor: record.actor,
            reason: record.reason,
            config: record.config.map(Into::into),
            trip_count: record.trip_count,
            successes: record.successes,
            failure_count: record.failure_count,
            last_failure: record.last_failure,
            last_success: record.last_success,
            closed_epoch: record.closed_epoch,
            transitions: record.transitions.into_iter().map(Transition::from).collect(),
        }
    }
}
