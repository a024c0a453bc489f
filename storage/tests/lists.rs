//! Lists against a plain filter over everything: whatever is asked for, and in pages of whatever size.

#![cfg(test)]

use std::sync::Arc;

use hub_core::delivery::{Claim, DeadReason, SettleOutcome, Settlement};
use hub_core::id::{MessageId, NodeId, RequestId, ServiceName};
use hub_core::message::{Cursor, Filter, NewMessage, Status};
use hub_core::port::{AppliedMark, Clock, Entry, MessageStore, StateMachine, Submitted};
use hub_core::time::Timestamp;
use hub_storage::sqlite::command::{Insert, Item};
use hub_storage::sqlite::{
    Command, DiskLimit, Feed, Options, SqliteMachine, Store, StoreOptions, StorePorts,
};
use hub_storage::suite::{Ids, LocalReplicator, ManualClock, TestSlots, plain_message};
use proptest::prelude::*;
use uuid::Uuid;

const NODE: NodeId = NodeId(1);
/// All messages fall into this many milliseconds.
const SPAN: i64 = 600_000;

/// One message, and what shall become of it.
#[derive(Clone, Debug)]
struct Seed {
    at: i64,
    sender: u8,
    target: u8,
    kind: u8,
    correlation: Option<u8>,
    fate: Status,
    /// It was a dead letter and was replayed before.
    replayed: bool,
}

fn seed() -> impl Strategy<Value = Seed> {
    let fate = prop::sample::select(vec![
        Status::Pending,
        Status::Delivering,
        Status::Retrying,
        Status::Delivered,
        Status::Cancelled,
        Status::Expired,
        Status::DeadLetter,
        Status::Discarded,
    ]);
    let correlation = prop::option::weighted(0.3, 0_u8..2);
    (0..SPAN, 0_u8..3, 0_u8..3, 0_u8..2, correlation, fate, prop::bool::weighted(0.1)).prop_map(
        |(at, sender, target, kind, correlation, fate, replayed)| Seed {
            at,
            sender,
            target,
            kind,
            correlation,
            fate,
            replayed,
        },
    )
}

fn filter() -> impl Strategy<Value = Filter> {
    let name = || prop::option::weighted(0.3, (0_u8..4).prop_map(service));
    let time = || prop::option::weighted(0.2, (-1_000..SPAN + 1_000).prop_map(at));
    let status = prop::option::weighted(0.5, prop::sample::select(Status::ALL.to_vec()));
    let kind = prop::option::weighted(0.2, (0_u8..3).prop_map(kind));
    let correlation = prop::option::weighted(0.2, (0_u8..3).prop_map(correlation));
    (status, name(), name(), name(), kind, correlation, time(), time()).prop_map(
        |(
            status,
            target,
            sender,
            visible_to,
            message_type,
            correlation_id,
            created_after,
            created_before,
        )| {
            Filter {
                status,
                target,
                sender,
                visible_to,
                message_type,
                correlation_id,
                created_after,
                created_before,
            }
        },
    )
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(ManualClock::default().now().as_millis() + millis)
}

fn service(number: u8) -> ServiceName {
    format!("service-{number}").parse().unwrap()
}

fn kind(number: u8) -> Arc<str> {
    format!("kind-{number}").into()
}

fn correlation(number: u8) -> Arc<str> {
    format!("correlation-{number}").into()
}

fn message(number: usize, seed: &Seed) -> NewMessage {
    let created_at = at(seed.at);
    let millis = created_at.as_millis().cast_unsigned();
    let id = (u128::from(millis) << 80) | (7 << 76) | (0b10 << 62) | number as u128;
    NewMessage {
        message_type: kind(seed.kind),
        correlation_id: seed.correlation.map(correlation),
        ..plain_message(
            MessageId(Uuid::from_u128(id)),
            service(seed.sender),
            service(seed.target),
            created_at,
        )
    }
}

/// The commands that bring a message where it shall stand.
fn commands(message: &NewMessage, seed: &Seed) -> Vec<Command> {
    let id = message.id;
    let claim = Claim { message: id, owner: NODE, term: 1, attempt: 1, lease_end: at(SPAN * 10) };
    let settle = |outcome| {
        Command::Settle(vec![Settlement { claim: claim.clone(), outcome, attempt: None, error: None }])
    };
    let insert = |claim| {
        let items = vec![Item { message: message.clone(), claim }];
        Command::Insert(Insert { items, atomic: false, max_backlog: u64::MAX })
    };
    let claimed = insert(Some(claim.clone()));
    let dead = settle(SettleOutcome::Dead(DeadReason::Gone));
    match seed.fate {
        Status::Pending | Status::Cancelled if seed.replayed => {
            let mut all = vec![claimed, dead, Command::Replay(id)];
            all.extend((seed.fate == Status::Cancelled).then_some(Command::Cancel(id)));
            all
        }
        Status::Cancelled => vec![insert(None), Command::Cancel(id)],
        Status::Delivering => vec![claimed],
        Status::Retrying => {
            vec![claimed, settle(SettleOutcome::RetryAt { at: at(SPAN * 2), counted: true })]
        }
        Status::Delivered => vec![claimed, settle(SettleOutcome::Delivered)],
        Status::Expired => vec![claimed, settle(SettleOutcome::Expired)],
        Status::DeadLetter => vec![claimed, dead],
        Status::Discarded => vec![claimed, dead, Command::Discard(id)],
        _ => vec![insert(None)],
    }
}

/// A store with these messages.
async fn store(folder: &std::path::Path, seeds: &[Seed]) -> (Store, Vec<NewMessage>) {
    let clock = Arc::new(ManualClock::default());
    let feed = Feed::new(NODE, Arc::<TestSlots>::default());
    let options = Options { folder: folder.join("db"), readers: 1 };
    let mut machine: SqliteMachine = options.open(feed.clone()).await.unwrap();
    let messages: Vec<_> = seeds.iter().enumerate().map(|(number, seed)| message(number, seed)).collect();
    let commands = messages.iter().zip(seeds).flat_map(|(message, seed)| commands(message, seed));
    let submitted: Vec<_> = commands
        .enumerate()
        .map(|(number, command)| Submitted {
            request: RequestId(Uuid::from_u128(number as u128 + 1)),
            command,
        })
        .collect();
    for (index, commands) in (1..).zip(submitted.chunks(1_000)) {
        let entry = Entry { index, term: 1, now: at(SPAN), commands: commands.to_vec() };
        machine.apply(vec![entry], AppliedMark { index, opaque: vec![1].into() }).await.unwrap();
    }
    let reader = machine.reader();
    let replicator = Arc::new(LocalReplicator::new(machine, NODE, feed.clone(), clock.clone()));
    let mut options = StoreOptions::new(folder.to_owned());
    options.disk_limit = DiskLimit { bytes: 0, percent: 0 };
    let ids = Arc::new(Ids::default());
    // Lists need nothing that runs.
    let (_, store) = options.build(StorePorts { replicator, reader, feed, clock, ids });
    (store, messages)
}

fn meets(filter: &Filter, message: &NewMessage, status: Status) -> bool {
    fn fits<T: PartialEq>(wanted: &Option<T>, found: &T) -> bool {
        wanted.as_ref().is_none_or(|wanted| wanted == found)
    }
    fits(&filter.status, &status)
        && fits(&filter.target, &message.target)
        && fits(&filter.sender, &message.sender)
        && fits(&filter.message_type, &message.message_type)
        && (filter.correlation_id.is_none() || filter.correlation_id == message.correlation_id)
        && (fits(&filter.visible_to, &message.sender) || fits(&filter.visible_to, &message.target))
        && filter.created_after.is_none_or(|after| message.created_at >= after)
        && filter.created_before.is_none_or(|before| message.created_at < before)
}

/// All pages; how many.
async fn pages(
    store: &Store,
    filter: &Filter,
    limit: u32,
) -> Result<(Vec<(MessageId, Status)>, usize), String> {
    let (mut all, mut after, mut count) = (Vec::new(), None::<Cursor>, 0);
    loop {
        let page = store.list(filter, after, limit).await.map_err(|error| error.to_string())?;
        count += 1;
        if page.items.len() > limit as usize {
            return Err(format!("a page of {} for {limit}", page.items.len()));
        }
        all.extend(page.items.iter().map(|record| (record.message.id, record.status)));
        match page.next {
            None => return Ok((all, count)),
            Some(next) if after.is_some_and(|after| next.0 >= after.0) => {
                return Err("the cursor stands".into());
            }
            Some(next) => after = Some(next),
        }
    }
}

fn expected(messages: &[NewMessage], seeds: &[Seed], filter: &Filter) -> Vec<(MessageId, Status)> {
    let all = messages.iter().zip(seeds).filter(|(message, seed)| meets(filter, message, seed.fate));
    let mut all: Vec<_> = all.map(|(message, seed)| (message.id, seed.fate)).collect();
    all.sort_unstable_by(|one, other| other.cmp(one));
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lists_hold_what_a_plain_filter_finds(
        seeds in prop::collection::vec(seed(), 0..240),
        filters in prop::collection::vec((filter(), 1_u32..60), 12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let (store, messages) = store(folder.path(), &seeds).await;
            for (filter, limit) in filters {
                let (found, _) = pages(&store, &filter, limit).await.map_err(TestCaseError::fail)?;
                prop_assert_eq!(found, expected(&messages, &seeds, &filter), "{:?} by {}", filter, limit);
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_page_that_finds_nothing_for_long_comes_back_with_a_cursor() {
    let rare = 10_500;
    let seeds: Vec<_> = (0..12_000)
        .map(|number| Seed {
            at: SPAN - number,
            sender: 0,
            target: 1,
            kind: u8::from(number == rare),
            correlation: None,
            fate: Status::Pending,
            replayed: false,
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let (store, messages) = store(folder.path(), &seeds).await;
    let filters = [
        Filter { message_type: Some(kind(1)), ..Filter::default() },
        Filter { message_type: Some(kind(1)), target: Some(service(1)), ..Filter::default() },
        Filter { message_type: Some(kind(1)), visible_to: Some(service(0)), ..Filter::default() },
        Filter { message_type: Some(kind(1)), status: Some(Status::Pending), ..Filter::default() },
    ];
    for filter in filters {
        let first = store.list(&filter, None, 50).await.unwrap();
        assert!(first.items.is_empty() && first.next.is_some(), "{filter:?}: {first:?}");
        let (found, count) = pages(&store, &filter, 50).await.unwrap();
        assert_eq!((found, count), (expected(&messages, &seeds, &filter), 2), "{filter:?}");
    }
}
