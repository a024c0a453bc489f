//! Every order in which a small cluster's proposals can be made, lost, repeated, delayed and applied, and its leader and the
//! leader's clock can change, tried out on the real record: what must hold of breakers holds in all of them.
//!
//! Each property is shown to catch a mistake that is planted between the model and the record.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod machine;
mod probes;
mod votes;

use std::collections::BTreeSet;

use machine::Mistake;

use stateright::{Checker, HasDiscoveries, Model};

/// Explores everything up to so many steps, and fails if a property does not hold or an example is not reached.
fn holds<M>(model: M, steps: usize, at_least: usize)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + std::fmt::Debug + std::hash::Hash + PartialEq + Send + Sync,
    M::Action: Clone + std::fmt::Debug + PartialEq,
{
    let checker = model.checker().target_max_depth(steps).spawn_bfs().join();
    checker.assert_properties();
    let states = checker.unique_state_count();
    assert!(states >= at_least, "only {states} states: the model has become too small to mean anything");
}

/// Explores until the property is violated.
fn catches<M>(model: M, property: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + std::fmt::Debug + std::hash::Hash + PartialEq + Send + Sync,
    M::Action: Clone + std::fmt::Debug + PartialEq,
{
    let enough = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = model.checker().target_max_depth(10).finish_when(enough).spawn_bfs().join();
    assert!(checker.discovery(property).is_some(), "{property:?} did not catch the planted mistake");
}

#[test]
fn probes_hold() {
    holds(probes::Probes::of(Mistake::None), 8, 1_000);
}

#[test]
fn votes_hold() {
    holds(votes::Votes::of(Mistake::None), 10, 1_000);
}

#[test]
fn a_second_lease_is_caught() {
    catches(probes::Probes::of(Mistake::SecondLease), probes::ONE_PROBE);
}

#[test]
fn a_lease_that_never_ends_is_caught() {
    catches(probes::Probes::of(Mistake::NoLeaseEnd), probes::SOUND);
}

#[test]
fn an_open_breaker_that_is_never_tried_again_is_caught() {
    catches(probes::Probes::of(Mistake::NoRetryAt), probes::SOUND);
}

#[test]
fn traffic_that_moves_a_forced_mode_is_caught() {
    catches(probes::Probes::of(Mistake::ForcedMoves), probes::FORCED_STANDS);
}

#[test]
fn a_delivery_that_counts_twice_is_caught() {
    catches(probes::Probes::of(Mistake::CountsTwice), probes::CLOSED_BY_DELIVERIES);
}

#[test]
fn a_replica_that_takes_its_own_time_is_caught() {
    catches(probes::Probes::of(Mistake::OwnClock), probes::REPLICAS_AGREE);
}

#[test]
fn a_stale_probe_result_is_caught() {
    catches(probes::Probes::of(Mistake::IgnoresEpoch), probes::STALE_IS_NOTHING);
}

#[test]
fn a_stale_vote_is_caught() {
    catches(votes::Votes::of(Mistake::IgnoresEpoch), votes::STALE_IS_NOTHING);
}

#[test]
fn a_cluster_that_does_not_hear_objections_is_caught() {
    catches(votes::Votes::of(Mistake::DeafToObjections), votes::ONE_BAD_NETWORK);
}
