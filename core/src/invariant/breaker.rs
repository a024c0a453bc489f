//! What holds of a breaker at any time, and from one entry to the next.

use super::ensure;
use crate::breaker::{Closed, Mode, Phase, Record, Stand, State, Vote};
use crate::time::Timestamp;

/// A record is sound at the state's time `clock`.
pub fn breaker(record: &Record, clock: Timestamp) -> Result<(), String> {
    match &record.phase {
        Phase::Closed(closed) => closed_is_sound(closed, clock)?,
        Phase::Open { opened_at, retry_at, .. } => {
            ensure(*opened_at <= clock, || "opened in the future".into())?;
            ensure(*retry_at < Timestamp::MAX, || "open, and never tried again".into())?;
        }
        Phase::HalfOpen { opened_at, probe } => {
            ensure(*opened_at <= probe.granted_at && probe.granted_at <= clock, || {
                "probed before it opened, or in the future".into()
            })?;
            let ends = probe.begin_before <= probe.lease_until && probe.lease_until < Timestamp::MAX;
            ensure(ends, || "a lease without an end".into())?;
        }
    }
    let fits = match record.mode {
        Mode::Auto => true,
        Mode::ForcedOpen => record.state() == State::Open,
        Mode::ForcedClosed | Mode::Observe => record.state() == State::Closed,
    };
    ensure(fits, || format!("{} in mode {}", record.state().as_str(), record.mode.as_str()))?;
    ensure((record.mode == Mode::Auto) == record.mode_until.is_none(), || {
        "a mode without an end, or an end without a mode".into()
    })?;
    let seen = record.last_failure.max(record.last_success);
    ensure(seen.is_none_or(|seen| seen <= clock), || "evidence of the future".into())?;
    ensure(record.closed_epoch <= record.epoch, || "closed at an epoch to come".into())?;
    ensure(record.transitions.len() <= Record::TRANSITIONS, || "too many transitions".into())?;
    let mut last = 0;
    for transition in &record.transitions {
        ensure(last <= transition.epoch && transition.epoch <= record.epoch, || {
            "transitions are out of order".into()
        })?;
        last = transition.epoch;
    }
    Ok(())
}

fn closed_is_sound(closed: &Closed, clock: Timestamp) -> Result<(), String> {
    let accused = closed.votes.values().any(Vote::accuses);
    ensure(closed.decide_at.is_none() || accused, || "a decision without an accusation".into())?;
    ensure(closed.healthy_since.is_none() || !accused, || "accused, and healthy".into())?;
    for (node, vote) in &closed.votes {
        let saw = match vote.stand {
            Stand::Unhealthy { since, .. } => Some(since),
            Stand::Healthy { success } => success,
        };
        ensure(vote.at <= clock && saw.is_none_or(|saw| saw <= vote.at), || {
            format!("node {node} saw the future")
        })?;
    }
    Ok(())
}

/// The epoch never steps back, and whatever moves takes a new one.
pub fn breaker_step(before: &Record, after: &Record) -> Result<(), String> {
    ensure(before.epoch <= after.epoch, || format!("epoch back from {} to {}", before.epoch, after.epoch))?;
    let moved = (before.state(), before.mode, before.config, before.successes)
        != (after.state(), after.mode, after.config, after.successes);
    ensure(!moved || before.epoch < after.epoch, || format!("moved within epoch {}", after.epoch))
}
