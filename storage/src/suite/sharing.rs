//! The conformance suite of `SharedCache`: a node's own cache and Redis pass the same cases.
//!
//! A test builds a fresh [`Nodes`] for each of [`cases`] and runs it there.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use hub_core::delivery::AttemptOutcome;
use hub_core::id::NodeId;
use hub_core::limit::{Ask, Demand, Fate, Key, Meter, Rate, Ruling, Verdict as Limits, decide};
use hub_core::message::{Attempt, Message, Priority, Record, Status};
use hub_core::port::{CacheError, SharedCache};
use hub_core::time::Timestamp;

use super::kit::{message_id, service};
use super::{Failure, Verdict, ensure, ensure_eq};

/// Two nodes that share a cache under test. Its permits are all saved.
pub struct Nodes {
    /// One of them.
    pub first: Arc<dyn SharedCache>,
    /// The other; a cache that shares nothing is its own other.
    pub second: Arc<dyn SharedCache>,
    /// It keeps messages too.
    pub keeps: bool,
}

/// A case under way.
pub type Running<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// One case.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Runs it on fresh nodes.
    pub run: for<'a> fn(&'a Nodes) -> Running<'a>,
}

macro_rules! list {
    ($($case:ident),+ $(,)?) => {
        vec![$(Case { name: stringify!($case), run: |nodes| Box::pin($case(nodes)) }),+]
    };
}

/// All cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    list![
        gives_what_is_saved_and_no_more,
        keeps_keys_apart,
        refusals_cost_nothing,
        a_whole_is_all_or_none,
        the_caller_pays_for_what_passes,
        a_large_demand_overdraws_once,
        permits_come_back,
        nodes_share_one_count,
        decides_as_the_rule_says,
        shows_a_message_as_it_was_kept,
        keeps_nothing_that_may_change,
    ]
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        Self::new(error.to_string())
    }
}

/// So slow that no permit comes back while a case runs.
fn frozen(burst: u32) -> Rate {
    Rate::every(Duration::from_secs(24 * 3600), burst)
}

fn caller(name: &str, rate: Rate, permits: u32) -> Demand {
    Demand { key: Key::Caller(name.into()), rate, permits }
}

fn target(name: &str, rate: Rate, permits: u32) -> Result<Demand, Failure> {
    Ok(Demand { key: Key::Target(service(name)?), rate, permits })
}

fn of_caller(demand: Demand) -> Ask {
    Ask { caller: Some(demand), ..Ask::default() }
}

async fn take_of_caller(cache: &Arc<dyn SharedCache>, demand: Demand) -> Result<Ruling, Failure> {
    let verdict = cache.take(&of_caller(demand)).await?;
    verdict.caller.ok_or_else(|| Failure::new("no answer about the caller".to_owned()))
}

fn fates(verdict: &Limits) -> Vec<Fate> {
    verdict.rulings().map(|ruling| ruling.fate).collect()
}

async fn gives_what_is_saved_and_no_more(nodes: &Nodes) -> Verdict {
    let cache = &nodes.first;
    for left in [4, 3, 2] {
        let ruling = take_of_caller(cache, caller("a", frozen(5), 1)).await?;
        ensure_eq!((ruling.fate, ruling.left), (Fate::Taken, left), "one of five");
    }
    let too_many = take_of_caller(cache, caller("a", frozen(5), 3)).await?;
    ensure_eq!((too_many.fate, too_many.left), (Fate::Refused, 2), "three of two");
    let day = Duration::from_secs(24 * 3600);
    ensure!(
        too_many.wait <= day && too_many.wait > day - Duration::from_secs(600),
        "waits {:?}",
        too_many.wait
    );
    ensure!(too_many.full_in > 2 * day && too_many.full_in <= 3 * day, "full in {:?}", too_many.full_in);
    let rest = take_of_caller(cache, caller("a", frozen(5), 2)).await?;
    ensure_eq!((rest.fate, rest.left, rest.wait), (Fate::Taken, 0, Duration::ZERO), "two of two");
    let none = take_of_caller(cache, caller("a", frozen(5), 1)).await?;
    ensure_eq!(none.fate, Fate::Refused, "one of none");
    Ok(())
}

async fn keeps_keys_apart(nodes: &Nodes) -> Verdict {
    let cache = &nodes.first;
    for name in ["a", "b", "a:b", "", "ä\r\n {x}"] {
        ensure_eq!(take_of_caller(cache, caller(name, frozen(1), 1)).await?.fate, Fate::Taken, name);
        ensure_eq!(take_of_caller(cache, caller(name, frozen(1), 1)).await?.fate, Fate::Refused, name);
    }
    let ask = Ask { targets: vec![target("a", frozen(1), 1)?, target("b", frozen(1), 1)?], ..Ask::default() };
    ensure_eq!(fates(&cache.take(&ask).await?), [Fate::Taken, Fate::Taken], "targets named as callers");
    Ok(())
}

async fn refusals_cost_nothing(nodes: &Nodes) -> Verdict {
    let cache = &nodes.first;
    let ask = |permits| -> Result<Ask, Failure> {
        let targets = vec![target("t", frozen(2), permits)?];
        Ok(Ask { caller: Some(caller("a", frozen(9), permits)), targets, whole: false })
    };
    ensure_eq!(fates(&cache.take(&ask(2)?).await?), [Fate::Taken, Fate::Taken], "both have them");
    let refused = cache.take(&ask(1)?).await?;
    ensure_eq!(fates(&refused), [Fate::Spared, Fate::Refused], "the target has none");
    ensure_eq!(refused.caller.map(|ruling| ruling.left), Some(7), "the caller's");
    let poor = Ask {
        caller: Some(caller("poor", frozen(1), 2)),
        targets: vec![target("u", frozen(9), 1)?, target("v", frozen(9), 1)?],
        whole: false,
    };
    ensure_eq!(take_of_caller(cache, caller("poor", frozen(1), 1)).await?.fate, Fate::Taken, "its only one");
    let refused = cache.take(&poor).await?;
    ensure_eq!(fates(&refused), [Fate::Refused, Fate::Spared, Fate::Spared], "the caller has none");
    ensure_eq!(refused.targets.iter().map(|ruling| ruling.left).collect::<Vec<_>>(), [9, 9], "the targets'");
    Ok(())
}

async fn a_whole_is_all_or_none(nodes: &Nodes) -> Verdict {
    let cache = &nodes.first;
    let ask = |whole| -> Result<Ask, Failure> {
        let targets = vec![target("t", frozen(9), 3)?, target("u", frozen(2), 2)?];
        Ok(Ask { caller: Some(caller("a", frozen(10), 5)), targets, whole })
    };
    ensure_eq!(fates(&cache.take(&ask(true)?).await?), [Fate::Taken; 3], "all have them");
    let none = cache.take(&ask(true)?).await?;
    ensure_eq!(fates(&none), [Fate::Spared, Fate::Spared, Fate::Refused], "one has not");
    ensure_eq!(none.rulings().map(|ruling| ruling.left).collect::<Vec<_>>(), [5, 6, 0], "left");
    Ok(())
}

async fn the_caller_pays_for_what_passes(nodes: &Nodes) -> Verdict {
    let cache = &nodes.first;
    let ask = || -> Result<Ask, Failure> {
        let targets = vec![target("t", frozen(9), 3)?, target("u", frozen(2), 2)?];
        Ok(Ask { caller: Some(caller("a", frozen(8), 5)), targets, whole: false })
    };
    cache.take(&ask()?).await?;
    let part = cache.take(&ask()?).await?;
    ensure_eq!(fates(&part), [Fate::Taken, Fate::Taken, Fate::Refused], "three of five pass");
    ensure_eq!(part.rulings().map(|ruling| ruling.left).collect::<Vec<_>>(), [0, 3, 0], "left");
    Ok(())
}

async fn a_large_demand_overdraws_once(nodes: &Nodes) -> Verdict {
    let cache = &nodes.first;
    let large = take_of_caller(cache, caller("a", frozen(10), 25)).await?;
    ensure_eq!((large.fate, large.left), (Fate::Taken, 0), "more than can be saved, all saved");
    let next = take_of_caller(cache, caller("a", frozen(10), 1)).await?;
    ensure_eq!(next.fate, Fate::Refused, "overdrawn");
    let days = next.wait.as_secs_f64() / (24.0 * 3600.0);
    ensure!((15.9..=16.0).contains(&days), "the next one in {days} days, expected 16");
    take_of_caller(cache, caller("b", frozen(10), 1)).await?;
    let refused = take_of_caller(cache, caller("b", frozen(10), 11)).await?;
    ensure_eq!(refused.fate, Fate::Refused, "more than can be saved, one is gone");
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "permits come back in real time")]
async fn permits_come_back(nodes: &Nodes) -> Verdict {
    let cache = &nodes.first;
    let rate = Rate::every(Duration::from_millis(40), 3);
    let started = Instant::now();
    let (mut taken, mut refused) = (0_u32, 0_u32);
    while taken < 12 {
        let ruling = take_of_caller(cache, caller("a", rate, 1)).await?;
        if ruling.fate == Fate::Taken {
            taken += 1;
        } else {
            refused += 1;
            ensure!(ruling.wait <= Duration::from_millis(40), "waits {:?} for one of 40 ms", ruling.wait);
            tokio::time::sleep(ruling.wait).await;
        }
        ensure!(started.elapsed() < Duration::from_secs(60), "{taken} permits in a minute");
    }
    // Nine of the twelve had to come; those that came while nobody asked may have been lost.
    ensure!(started.elapsed() >= Duration::from_millis(9 * 40 - 10), "too fast: {:?}", started.elapsed());
    ensure!(refused > 0 || started.elapsed() > Duration::from_millis(400), "nothing was refused");
    Ok(())
}

async fn nodes_share_one_count(nodes: &Nodes) -> Verdict {
    let both = [&nodes.first, &nodes.second];
    let takes = (0..60).map(|turn| {
        let node = both.get(turn % 2).copied().unwrap_or(&nodes.first);
        take_of_caller(node, caller("a", frozen(25), 1))
    });
    let mut taken = 0;
    for ruling in join_all(takes).await {
        taken += u32::from(ruling?.fate == Fate::Taken);
    }
    ensure_eq!(taken, 25, "permits taken by two nodes at once");
    Ok(())
}

/// A row of small numbers that looks like chance and is always the same.
fn chance(seed: &mut u64, bound: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % bound
}

/// Every answer is that of the pure decision, at a rate that gives nothing back meanwhile.
async fn decides_as_the_rule_says(nodes: &Nodes) -> Verdict {
    let bursts = [40, 20, 7];
    let mut meters = [Meter::default(); 3];
    let (mut seed, mut fates) = (11, Vec::new());
    for round in 0..200 {
        let number = |seed: &mut u64| u32::try_from(chance(seed, 5)).unwrap_or(0);
        let (first, second) = (number(&mut seed), number(&mut seed));
        let whole = chance(&mut seed, 2) == 0;
        let mut targets = Vec::new();
        let mut places = Vec::new();
        if chance(&mut seed, 3) > 0 {
            places.push(0);
        }
        for (at, name, permits) in [(1, "t", first), (2, "u", second)] {
            if permits > 0 {
                targets.push(target(name, frozen(bursts[at]), permits)?);
                places.push(at);
            }
        }
        let limited = places.first() == Some(&0) && first + second > 0;
        places.retain(|at| limited || *at > 0);
        let caller = limited.then(|| caller("a", frozen(bursts[0]), first + second));
        let ask = Ask { caller, targets, whole };
        let mut own: Vec<Meter> = places.iter().map(|at| meters[*at]).collect();
        let expected = decide(&ask, &mut own, 0);
        for (at, meter) in places.iter().zip(own) {
            meters[*at] = meter;
        }
        let found = nodes.first.take(&ask).await?;
        let plain = |verdict: &Limits| verdict.rulings().map(|one| (one.fate, one.left)).collect::<Vec<_>>();
        ensure_eq!(plain(&found), plain(&expected), &format!("round {round}: {ask:?}"));
        fates.extend(expected.rulings().map(|ruling| ruling.fate));
    }
    for fate in [Fate::Taken, Fate::Refused, Fate::Spared] {
        ensure!(fates.contains(&fate), "{fate:?} did not occur");
    }
    Ok(())
}

fn record(number: u64, status: Status) -> Result<Record, Failure> {
    let now = Timestamp::from_millis(1_800_000_000_123);
    Ok(Record {
        message: Message {
            id: message_id(now, number),
            sender: service("sender")?,
            target: service("target")?,
            message_type: "thing.happened".into(),
            content: "{ \"b\": 1.00, \"a\": [1e3, \"\\u00e4\\u0000\"],\"a\":2 }".into(),
            metadata: Some("{\"z\":1}".into()),
            priority: Priority::default(),
            created_at: now,
            expires_at: Some(now.plus(Duration::from_secs(60))),
            max_retries: Some(3),
            traceparent: None,
        },
        status,
        retry_count: 1,
        processed_at: Some(now.plus(Duration::from_secs(2))),
        error_message: Some("it failed: \"ä\"".into()),
        dead_reason: None,
        deliver_at: None,
        retry_at: None,
        attempts: vec![Attempt {
            number: 1,
            node: NodeId(7),
            instance: None,
            started_at: now,
            duration_ms: 12,
            outcome: AttemptOutcome::Delivered,
            http_status: Some(204),
            error_class: None,
            response: Some("answer\n".into()),
        }],
    })
}

async fn shows_a_message_as_it_was_kept(nodes: &Nodes) -> Verdict {
    let ends = [Status::Delivered, Status::Cancelled, Status::Expired];
    for (number, status) in (1..).zip(ends) {
        let record = record(number, status)?;
        ensure_eq!(nodes.first.ended(record.message.id).await?, None, "before it was kept");
        nodes.first.keep_ended(&record, Duration::from_secs(600)).await?;
        let found = nodes.second.ended(record.message.id).await?;
        ensure_eq!(found, nodes.keeps.then_some(record), "as it was kept");
    }
    let mut large = record(9, Status::Delivered)?;
    large.message.content = format!("\"{}\"", "x".repeat(1 << 20)).into();
    nodes.first.keep_ended(&large, Duration::from_secs(600)).await?;
    let found = nodes.second.ended(large.message.id).await?;
    ensure!(found.is_none_or(|found| found == large), "a large one, if it is kept");
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "what is kept goes in real time")]
async fn keeps_nothing_that_may_change(nodes: &Nodes) -> Verdict {
    for (number, status) in (1..).zip(Status::ALL) {
        if matches!(status, Status::Delivered | Status::Cancelled | Status::Expired) {
            continue;
        }
        let record = record(number, status)?;
        nodes.first.keep_ended(&record, Duration::from_secs(600)).await?;
        ensure_eq!(nodes.first.ended(record.message.id).await?, None, status.as_str());
    }
    let short = record(99, Status::Delivered)?;
    nodes.first.keep_ended(&short, Duration::from_millis(50)).await?;
    let started = Instant::now();
    while nodes.second.ended(short.message.id).await?.is_some() {
        ensure!(started.elapsed() < Duration::from_secs(60), "kept for longer than 50 ms");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    nodes.first.keep_ended(&short, Duration::ZERO).await?;
    ensure_eq!(nodes.second.ended(short.message.id).await?, None, "kept for no time");
    Ok(())
}
