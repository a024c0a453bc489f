//! The SQLite state machine against a plain model in memory that shares no code with it, and against itself with the same
//! entries applied in other portions: every node must hold the same rows.

#![cfg(test)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hub_core::delivery::{AttemptOutcome, SettleOutcome};
use hub_core::id::NodeId;
use hub_core::message::Fingerprint;
use hub_core::port::{AppliedMark, Clock, Entry, Stamper, StateMachine, Submitted};
use hub_storage::sqlite::{Command, Feed, Options, Reply, SqliteMachine};
use hub_storage::suite::{ManualClock, TestSlots};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use support::audit::audit;
use support::command::{Op, World, ops};
use support::dump::{dump, shown};
use support::model::Model;

async fn machine(folder: &std::path::Path, slots: Arc<TestSlots>) -> (SqliteMachine, Arc<Feed>) {
    let feed = Feed::new(NodeId(1), slots);
    let options = Options { folder: folder.to_owned(), readers: 1 };
    (options.open(feed.clone()).await.unwrap(), feed)
}

fn mark(index: u64) -> AppliedMark {
    AppliedMark { index, opaque: index.to_be_bytes().to_vec().into() }
}

/// A mistake in what the machine gets, as if it did not do what it is told.
type Tamper = fn(&mut Command);

/// Runs the operations on the machine and the model, compares every reply and the state after it; and nothing that was
/// promised of a message, and no counter, may be broken by any step.
async fn against_the_model(
    all: &[Op],
    tamper: Tamper,
) -> Result<(Vec<Entry<Command>>, Vec<Vec<Vec<Reply>>>, String), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let (clock, slots) = (ManualClock::default(), Arc::new(TestSlots::default()));
    let (mut machine, feed) = machine(folder.path(), slots.clone()).await;
    let (mut model, mut world) = (Model::default(), World::default());
    let (mut entries, mut answers) = (Vec::new(), Vec::new());
    let mut before = BTreeMap::new();
    for (at, op) in all.iter().enumerate() {
        if let Op::Advance(millis) = op {
            clock.advance(Duration::from_millis(*millis));
            continue;
        }
        let Some(command) = world.command(op, clock.now(), &slots) else { continue };
        let request = world.request(op);
        let mut proposals = vec![Submitted { request, command }];
        feed.stamp(1, clock.now(), &mut proposals);
        let index = entries.len() as u64 + 1;
        let expected = model.apply(clock.now().as_millis(), request, &proposals[0].command);
        tamper(&mut proposals[0].command);
        let entry = Entry { index, term: 1, now: clock.now(), commands: proposals };
        let replies = machine.apply(vec![entry.clone()], mark(index)).await.unwrap();
        let reply = &replies[0][0];
        prop_assert_eq!(reply, &expected, "step {} {:?}", at, op);
        world.learn(reply);
        entries.push(entry);
        answers.push(replies);
        prop_assert_eq!(shown(folder.path()).await, model.shown(), "after step {} {:?}", at, op);
        before = audit(folder.path(), &before)
            .await
            .map_err(|problem| TestCaseError::fail(format!("after step {at} {op:?}: {problem}")))?;
    }
    Ok((entries, answers, dump(folder.path()).await))
}

/// Applies the same entries in portions of these sizes.
async fn in_portions(
    entries: &[Entry<Command>],
    answers: &[Vec<Vec<Reply>>],
    sizes: &[usize],
) -> Result<String, TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let (mut other, _) = machine(folder.path(), Arc::default()).await;
    let (mut rest, mut sizes) = (entries, sizes.iter().cycle());
    let mut replies = Vec::new();
    while !rest.is_empty() {
        let (portion, more) = rest.split_at(*sizes.next().unwrap_or(&1).min(&rest.len()));
        let last = portion.last().map_or(0, |entry| entry.index);
        replies.extend(other.apply(portion.to_vec(), mark(last)).await.unwrap());
        rest = more;
        if last % 3 == 0 {
            // A restart in the middle changes nothing.
            drop(other);
            (other, _) = machine(folder.path(), Arc::default()).await;
            prop_assert_eq!(other.applied(), mark(last));
        }
    }
    let wanted: Vec<_> = answers.iter().flatten().cloned().collect();
    prop_assert_eq!(replies, wanted, "replies in other portions");
    Ok(dump(folder.path()).await)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_machine_does_what_the_model_does(all in ops(70), sizes in prop::collection::vec(1_usize..9, 1..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (entries, answers, rows) = against_the_model(&all, |_| {}).await?;
            prop_assert_eq!(in_portions(&entries, &answers, &sizes).await?, rows, "rows in other portions");
            Ok(())
        })?;
    }
}

/// Whether random operations show that the machine got something else than the model.
fn is_caught(tamper: Tamper) -> bool {
    let config = Config { cases: 200, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let run = runner.run(&ops(70), |all| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(against_the_model(&all, tamper)).map(|_| ())
    });
    run.is_err()
}

#[test]
fn the_model_catches_a_machine_that_believes_any_claim() {
    assert!(is_caught(|command| {
        if let Command::Settle(all) = command {
            for settlement in all {
                settlement.claim.owner = NodeId(1);
            }
        }
    }));
}

#[test]
fn the_model_catches_a_machine_that_counts_no_retry() {
    assert!(is_caught(|command| {
        if let Command::Settle(all) = command {
            for settlement in all {
                if let SettleOutcome::RetryAt { counted, .. } = &mut settlement.outcome {
                    *counted = false;
                }
            }
        }
    }));
}

#[test]
fn the_model_catches_a_machine_that_takes_a_key_for_another_body() {
    assert!(is_caught(|command| {
        if let Command::Insert(insert) = command {
            for key in insert.items.iter_mut().filter_map(|item| item.message.idempotency.as_mut()) {
                key.fingerprint = Fingerprint([0; 16]);
            }
        }
    }));
}

#[test]
fn the_model_catches_a_machine_that_forgets_that_a_message_may_have_arrived() {
    assert!(is_caught(|command| {
        if let Command::Settle(all) = command {
            for attempt in all.iter_mut().filter_map(|settlement| settlement.attempt.as_mut()) {
                if attempt.outcome == AttemptOutcome::NoAnswer {
                    attempt.outcome = AttemptOutcome::Failed;
                }
            }
        }
    }));
}
