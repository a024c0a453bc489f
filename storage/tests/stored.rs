//! Rows of every released version, as they lie in databases: each sort of record with every column filled. A later version
//! must read them; what this version writes are these rows.

#![cfg(test)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hub_core::delivery::{AttemptOutcome, Claim, DeadReason, SettleOutcome, Settlement};
use hub_core::id::{MessageId, NodeId, RequestId};
use hub_core::message::{Attempt, Fingerprint, IdempotencyKey, NewMessage, Priority, Status};
use hub_core::port::{
    AcceptRefusal, AppliedMark, Clock, Consistency, Entry, MessageStore, StateMachine, Submitted, Want,
};
use hub_core::time::Timestamp;
use hub_storage::sqlite::command::{ClaimDue, Insert, Item};
use hub_storage::sqlite::{
    Command, DiskLimit, Feed, Options, Reply, SqliteMachine, StoreOptions, StorePorts,
};
use hub_storage::suite::{Ids, LocalReplicator, ManualClock, TestSlots};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use uuid::Uuid;

const TABLES: [&str; 6] = ["attempts", "backlog", "deliveries", "idempotency", "machine", "messages"];

fn id(number: u64) -> MessageId {
    MessageId(Uuid::from_u128((0x0190_0000_0000_7000_8000_u128 << 48) | u128::from(number)))
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + millis)
}

fn claim(number: u64) -> Claim {
    Claim { message: id(number), owner: NodeId(300), term: 7, attempt: 1, lease_end: at(20_000) }
}

fn message(number: u64) -> NewMessage {
    NewMessage {
        id: id(number),
        sender: "character".parse().unwrap(),
        target: "world.state-1".parse().unwrap(),
        message_type: "character.created".into(),
        content: format!("{{ \"name\": \"\u{c4}da's\", \"n\": {number}.0 }}").into(),
        metadata: Some("{\"correlation_id\":\"c\"}".into()),
        correlation_id: Some("c".into()),
        priority: Priority::new(9).unwrap(),
        created_at: at(0),
        deliver_at: Some(at(1)),
        expires_at: Some(at(90_000)),
        too_old_at: at(100_000),
        max_retries: Some(100),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        idempotency: Some(IdempotencyKey {
            caller: "character".to_owned(),
            key: format!("key#{number}"),
            fingerprint: Fingerprint([9; 16]),
        }),
    }
}

fn settle(number: u64, outcome: SettleOutcome, attempt: AttemptOutcome) -> Command {
    let attempt = Attempt {
        number: 1,
        node: NodeId(300),
        instance: Some("instance-1".parse().unwrap()),
        started_at: at(4),
        duration_ms: 1_234,
        outcome: attempt,
        http_status: Some(503),
        error_class: Some("timeout".into()),
        response: Some("try again".into()),
    };
    let error = Some("target answered 503".into());
    Command::Settle(vec![Settlement { claim: claim(number), outcome, attempt: Some(attempt), error }])
}

/// 1 waits, bare; 2 is under way; 3 is retrying; 4 was delivered; 5 is a dead letter; 6 was cancelled; 7 discarded.
fn commands() -> Vec<Command> {
    let bare = NewMessage {
        metadata: None,
        correlation_id: None,
        deliver_at: None,
        expires_at: None,
        max_retries: None,
        traceparent: None,
        idempotency: None,
        ..message(1)
    };
    let mut items = vec![Item { message: bare, claim: None }];
    for number in 2..=7 {
        items.push(Item { message: message(number), claim: (number != 6).then(|| claim(number)) });
    }
    vec![
        Command::Insert(Insert { items, atomic: true, max_backlog: 100 }),
        settle(3, SettleOutcome::RetryAt { at: at(9_000), counted: true }, AttemptOutcome::NoAnswer),
        settle(4, SettleOutcome::Delivered, AttemptOutcome::Delivered),
        settle(5, SettleOutcome::Dead(DeadReason::Exhausted), AttemptOutcome::Failed),
        Command::Cancel(id(6)),
        settle(7, SettleOutcome::Dead(DeadReason::Rejected), AttemptOutcome::Rejected),
        Command::Discard(id(7)),
        // Came too late.
        settle(4, SettleOutcome::Expired, AttemptOutcome::NotSent),
    ]
}

fn mark() -> AppliedMark {
    AppliedMark { index: 300, opaque: vec![1, 2, 3].into() }
}

async fn open(folder: &Path) -> (SqliteMachine, Arc<Feed>) {
    let feed = Feed::new(NodeId(300), Arc::<TestSlots>::default());
    let options = Options { folder: folder.to_owned(), readers: 1 };
    (options.open(feed.clone()).await.unwrap(), feed)
}

async fn connect(folder: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(folder.join("messages-0.db")).create_if_missing(true);
    SqliteConnection::connect_with(&options).await.unwrap()
}

/// Every row as a statement that inserts it.
async fn rows(folder: &Path) -> String {
    let mut connection = connect(folder).await;
    let mut text = String::new();
    for table in TABLES {
        let columns: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info(?) ORDER BY cid")
            .bind(table)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let quoted: Vec<String> = columns.iter().map(|name| format!("quote({name})")).collect();
        let query = format!(
            "SELECT 'INSERT INTO {table} ({}) VALUES (' || {} || ');' FROM {table} ORDER BY 1",
            columns.join(", "),
            quoted.join(" || ', ' || ")
        );
        let found: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(&mut connection).await.unwrap();
        text.push_str(&found.join("\n"));
        text.push('\n');
    }
    text
}

fn golden(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/0.1.0").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The database as version 0.1.0 left it.
async fn released(folder: &Path) {
    std::fs::write(folder.join("current"), golden("current")).unwrap();
    let mut connection = connect(folder).await;
    let schema = include_str!("../../migrations/sqlite/0001_messages.sql");
    let ours = "PRAGMA application_id = 1296586050; PRAGMA user_version = 1;";
    for text in [schema, "DELETE FROM machine;", &golden("rows.sql"), ours] {
        sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
}

#[tokio::test]
async fn this_version_writes_the_rows_of_its_release() {
    let folder = tempfile::tempdir().unwrap();
    let (mut machine, _) = open(folder.path()).await;
    let commands = commands().into_iter().enumerate().map(|(number, command)| Submitted {
        request: RequestId(Uuid::from_u128(number as u128 + 1)),
        command,
    });
    let entry = Entry { index: 300, term: 7, now: at(0), commands: commands.collect() };
    machine.apply(vec![entry], mark()).await.unwrap();
    assert_eq!(rows(folder.path()).await, golden("rows.sql"));
    assert_eq!(std::fs::read_to_string(folder.path().join("current")).unwrap(), golden("current"));
}

#[tokio::test]
async fn rows_of_every_release_are_read_and_worked_with() {
    let folder = tempfile::tempdir().unwrap();
    released(folder.path()).await;
    let (mut machine, feed) = open(folder.path()).await;
    assert_eq!(machine.applied(), mark());
    // Keys, open rows and ended ones are all believed, checksums included.
    let want = Want { target: "world.state-1".parse().unwrap(), count: 9, lease: Duration::from_secs(20) };
    let other = IdempotencyKey { fingerprint: Fingerprint([8; 16]), ..message(2).idempotency.unwrap() };
    let reused = NewMessage { idempotency: Some(other), ..message(8) };
    let next = vec![
        Command::Insert(Insert {
            items: vec![Item { message: reused, claim: None }],
            atomic: false,
            max_backlog: 9,
        }),
        Command::Replay(id(5)),
        settle(2, SettleOutcome::Delivered, AttemptOutcome::Delivered),
        Command::Claim(ClaimDue { owner: NodeId(300), term: 8, wants: vec![want] }),
    ];
    let request = RequestId(Uuid::from_u128(1 << 64));
    let commands = next.into_iter().map(|command| Submitted { request, command }).collect();
    let entry = Entry { index: 301, term: 8, now: at(9_000), commands };
    let replies = machine.apply(vec![entry], AppliedMark { index: 301, ..mark() }).await.unwrap().remove(0);
    assert_eq!(replies[0], Reply::Inserted(vec![Err(AcceptRefusal::KeyReused)]));
    assert_eq!(replies[2], Reply::Settled(vec![true]));
    let Reply::Claimed(granted) = &replies[3] else { panic!("{replies:?}") };
    let mut granted: Vec<_> = granted.iter().map(|one| (one.message, one.attempt, one.retry_count)).collect();
    granted.sort_unstable();
    assert_eq!(granted, [(id(1), 1, 0), (id(3), 2, 1), (id(5), 2, 0)]);
    read_back(machine, feed, folder.path()).await;
}

async fn read_back(machine: SqliteMachine, feed: Arc<Feed>, folder: &Path) {
    use Status as S;
    let (clock, ids) = (Arc::new(ManualClock::default()), Arc::new(Ids::default()));
    let deadline = clock.instant() + Duration::from_secs(60);
    let reader = machine.reader();
    let replicator = Arc::new(LocalReplicator::new(machine, NodeId(300), feed.clone(), clock.clone()));
    let mut options = StoreOptions::new(folder.to_owned());
    options.disk_limit = DiskLimit { bytes: 0, percent: 0 };
    let (_, store) = options.build(StorePorts { replicator, reader, feed, clock, ids });
    let ends =
        [S::Delivering, S::Delivered, S::Delivering, S::Delivered, S::Delivering, S::Cancelled, S::Discarded];
    for (number, status) in (1..).zip(ends) {
        let record = store.get(id(number), Consistency::Stale, deadline).await.unwrap().unwrap();
        assert_eq!((record.status, &record.message.content), (status, &message(number).content), "{number}");
        let attempts: usize = if [1, 6].contains(&number) { 0 } else { 1 };
        assert_eq!(record.attempts.len(), attempts, "{number}");
        assert!(record.attempts.iter().all(|attempt| attempt.response.as_deref() == Some("try again")));
    }
    let backlog = store.backlog(&"world.state-1".parse().unwrap()).await.unwrap();
    let found = (backlog.depth, backlog.in_flight, backlog.accepted_total, backlog.delivered_total);
    assert_eq!((found, backlog.dead_letters), ((3, 3, 7, 2), 0));
}
