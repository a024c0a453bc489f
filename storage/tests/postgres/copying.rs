//! An embedded store is copied into a database: everything is there, once, however often the copy was interrupted, and what
//! does not belong together is refused.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hub_core::delivery::{AttemptOutcome, DeadReason, SettleOutcome, Settlement};
use hub_core::id::{MessageId, NodeId};
use hub_core::message::{
    Attempt, Filter, Fingerprint, IdempotencyKey, NewMessage, Page, Priority, Record, Status,
};
use hub_core::port::{
    AcceptMode, AcceptRefusal, Backlog, Claimed, Clock, Consistency, DeliveryQueue, IdSource, MessageStore,
    StoreError, Want,
};
use hub_storage::copy::{self, Done, Origin};
use hub_storage::postgres::{Import, ImportError, SetupError, Standing, prepare};
use hub_storage::sqlite::{DiskLimit, Feed, Options, Store, StoreOptions, StorePorts, Walk};
use hub_storage::suite::{Ids, LocalReplicator, ManualClock, RealClock, TestSlots, plain_message};
use secrecy::SecretString;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::base::{Base, LEASE, Node, deadline, service, until};
use crate::proxy::Proxy;

const NODE: NodeId = NodeId(7);

/// An embedded store without a cluster around it.
struct Embedded {
    store: Store,
    clock: Arc<ManualClock>,
    ids: Ids,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Embedded {
    async fn open(folder: &Path, clock: &Arc<ManualClock>) -> Self {
        let feed = Feed::new(NODE, Arc::<TestSlots>::default());
        let options = Options { folder: folder.to_owned(), readers: 1 };
        let machine = options.open(feed.clone()).await.unwrap();
        let reader = machine.reader();
        let replicator = Arc::new(LocalReplicator::new(machine, NODE, feed.clone(), clock.clone()));
        let mut options = StoreOptions::new(folder.to_owned());
        options.disk_limit = DiskLimit { bytes: 0, percent: 0 };
        let ids = Arc::new(Ids::default());
        let ports = StorePorts { replicator, reader, feed, clock: clock.clone(), ids };
        let (service, store) = options.build(ports);
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "the test is the lifecycle")]
        let running = tokio::spawn(service.run(stop.clone()));
        Self { store, clock: clock.clone(), ids: Ids::default(), stop, running }
    }

    async fn close(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }

    fn message(&self, target: &str) -> NewMessage {
        let now = self.clock.now();
        plain_message(self.ids.message_id(now), service("sender"), service(target), now)
    }

    async fn send(&self, message: NewMessage) -> MessageId {
        let sent = self.store.accept(vec![message], AcceptMode::Each, deadline()).await.unwrap();
        sent.into_iter().next().unwrap().unwrap().id
    }

    async fn claim(&self, target: &str) -> Claimed {
        let want = Want { target: service(target), count: 1, lease: LEASE };
        self.store.claim(vec![want], deadline()).await.unwrap().pop().unwrap()
    }

    /// One attempt at the target's message.
    async fn attempt(&self, target: &str, outcome: SettleOutcome, how: AttemptOutcome) {
        let claim = self.claim(target).await.claim;
        let attempt = Attempt {
            number: claim.attempt,
            node: NODE,
            instance: Some("instance-1".parse().unwrap()),
            started_at: self.clock.now(),
            duration_ms: 17,
            outcome: how,
            http_status: Some(503),
            error_class: Some("timeout".into()),
            response: Some("try \u{e4}gain".into()),
        };
        let error = (outcome != SettleOutcome::Delivered).then(|| "target answered 503".into());
        let settlement = Settlement { claim, outcome, attempt: Some(attempt), error };
        assert_eq!(self.store.settle(vec![settlement], deadline()).await.unwrap(), [true]);
    }

    /// Messages in every state, old and new ones; each target has one.
    async fn fill(&self) -> Vec<MessageId> {
        let mut ids =
            vec![self.send(NewMessage { idempotency: key("old", 1), ..self.message("plain") }).await];
        self.clock.advance(Duration::from_secs(3 * 24 * 3600));
        ids.push(self.send(self.message("dead")).await);
        self.attempt("dead", SettleOutcome::Dead(DeadReason::Rejected), AttemptOutcome::Rejected).await;
        self.clock.advance(Duration::from_secs(60));
        ids.push(self.send(NewMessage { idempotency: key("new", 1), ..self.message("keyed") }).await);
        ids.push(self.send(self.full()).await);
        let expiring =
            NewMessage { expires_at: Some(self.clock.now().plus(LEASE)), ..self.message("expiring") };
        ids.push(self.send(expiring).await);
        for target in ["delivered", "discarded", "replayed", "retrying", "cancelled", "claimed", "again"] {
            ids.push(self.send(self.message(target)).await);
        }
        self.attempt("delivered", SettleOutcome::Delivered, AttemptOutcome::Delivered).await;
        for target in ["discarded", "replayed"] {
            self.attempt(target, SettleOutcome::Dead(DeadReason::Exhausted), AttemptOutcome::Failed).await;
        }
        self.store.discard(ids[6], deadline()).await.unwrap();
        self.store.replay(ids[7], deadline()).await.unwrap();
        for _ in 0..30 {
            let retry = SettleOutcome::RetryAt { at: self.clock.now(), counted: true };
            self.attempt("retrying", retry, AttemptOutcome::NoAnswer).await;
        }
        self.store.cancel(ids[9], deadline()).await.unwrap();
        self.clock.advance(LEASE + LEASE);
        self.store.sweep(&|_| true, Duration::from_secs(30 * 24 * 3600), 100, deadline()).await.unwrap();
        let retry = SettleOutcome::RetryAt { at: self.clock.now(), counted: true };
        self.attempt("again", retry, AttemptOutcome::Failed).await;
        self.claim("claimed").await;
        self.claim("again").await;
        ids
    }

    /// One with every field.
    fn full(&self) -> NewMessage {
        let now = self.clock.now();
        NewMessage {
            content: "{ \"text\": \"\\u0000 \u{c4}da's \\ud800\", \"n\": 1.50e2 }".into(),
            metadata: Some("{\"correlation_id\":\"a\\u0000\\\\b\"}".into()),
            correlation_id: Some("a\0\\b".into()),
            priority: Priority::new(9).unwrap(),
            deliver_at: Some(now.plus(Duration::from_secs(3_600))),
            expires_at: Some(now.plus(Duration::from_secs(7_200))),
            max_retries: Some(100),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            ..self.message("scheduled")
        }
    }
}

fn key(key: &str, body: u8) -> Option<IdempotencyKey> {
    let (caller, key) = ("caller\0".to_owned(), key.to_owned());
    Some(IdempotencyKey { caller, key, fingerprint: Fingerprint([body; 16]) })
}

/// Everything that reads show.
async fn picture(
    store: &dyn MessageStore,
    ids: &[MessageId],
) -> (Vec<Record>, Vec<Page>, Vec<(hub_core::id::ServiceName, Backlog)>) {
    let mut records = Vec::new();
    for id in ids {
        records.push(store.get(*id, Consistency::Linearizable, deadline()).await.unwrap().unwrap());
    }
    let plain = Filter::default;
    let mut filters: Vec<Filter> =
        Status::ALL.into_iter().map(|status| Filter { status: Some(status), ..plain() }).collect();
    filters.extend([
        plain(),
        Filter { target: Some(service("retrying")), ..plain() },
        Filter { target: Some(service("dead")), status: Some(Status::DeadLetter), ..plain() },
        Filter { visible_to: Some(service("sender")), ..plain() },
        Filter { correlation_id: Some("a\0\\b".into()), ..plain() },
    ]);
    let mut pages = Vec::new();
    for filter in &filters {
        pages.push(store.list(filter, None, 100).await.unwrap());
    }
    (records, pages, store.backlogs().await.unwrap())
}

fn origin(walk: &Walk) -> Origin {
    Origin { cluster: u128::MAX - 5, node: NODE.0, entry: walk.applied().index }
}

/// One run of a copy to its end.
async fn run(folder: &Path, url: &str, tell: impl FnMut(&Done) + Send) -> Result<Done, copy::Error> {
    let mut walk = Walk::open(folder).await?;
    let secret = SecretString::from(url.to_owned());
    let (mut import, _) = Import::begin(&secret, origin(&walk), Arc::new(RealClock), false).await?;
    let done = copy::run(&mut walk, &mut import, tell).await?;
    walk.close().await?;
    import.finish().await?;
    Ok(done)
}

async fn begin(base: &Base, origin: Origin, start_over: bool) -> Result<(Import, Standing), ImportError> {
    Import::begin(&base.secret(), origin, Arc::new(RealClock), start_over).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_copied_reads_and_goes_on_as_before() {
    let (folder, base, clock) = (tempfile::tempdir().unwrap(), Base::with_hands().await, Arc::default());
    let embedded = Embedded::open(folder.path(), &clock).await;
    let ids = embedded.fill().await;
    let (mut records, pages, mut backlogs) = picture(&embedded.store, &ids).await;
    embedded.close().await;
    base.set_clock(clock.now()).await;
    let done = run(folder.path(), &base.url, |_| {}).await.unwrap();
    assert_eq!((done.messages, done.open, done.dead_letters, done.keys), (12, 7, 1, 1));
    base.audit().await;

    let node = Node::start_with(&base.url, 9, clock.clone(), |_| {});
    let (found, found_pages, found_backlogs) = picture(&node.store, &ids).await;
    // What was claimed waits again, and says that nobody knows how its attempt ended.
    for (at, status) in [(10, Status::Pending), (11, Status::Retrying)] {
        let (before, after) = (&mut records[at], &found[at]);
        assert_eq!((before.status, after.status), (Status::Delivering, status));
        let lapsed = after.attempts.last().unwrap();
        assert_eq!((lapsed.outcome, lapsed.node), (AttemptOutcome::NoAnswer, NODE));
        assert!(after.retry_at.is_some_and(|due| due <= clock.now()), "due at once");
        before.status = after.status;
        before.retry_at = after.retry_at;
        before.error_message.clone_from(&after.error_message);
        before.attempts.push(lapsed.clone());
    }
    assert_eq!(found, records);
    for (before, after) in pages.iter().zip(&found_pages) {
        let ids = |page: &Page| {
            let shown = page.items.iter().filter(|record| !ids[10..].contains(&record.message.id));
            shown.cloned().collect::<Vec<_>>()
        };
        assert_eq!(ids(after), ids(before));
    }
    for (_, backlog) in &mut backlogs {
        backlog.in_flight = 0;
    }
    assert_eq!(found_backlogs, backlogs);

    let again = |name, body| NewMessage { idempotency: key(name, body), ..node.message("keyed") };
    let accepted = async |message| {
        node.store.accept(vec![message], AcceptMode::Each, deadline()).await.unwrap().remove(0)
    };
    let replayed = node.accept(again("new", 1)).await.unwrap();
    assert_eq!((replayed.id, replayed.replayed), (ids[2], true));
    assert_eq!(accepted(again("new", 2)).await, Err(AcceptRefusal::KeyReused));
    assert!(!node.accept(again("old", 2)).await.unwrap().replayed, "its day is over");

    for (target, id, number) in
        [("plain", 0, 1), ("replayed", 7, 2), ("retrying", 8, 31), ("claimed", 10, 2), ("again", 11, 3)]
    {
        let claimed = node.claim(target, 5).await;
        assert_eq!(claimed.len(), 1, "{target}");
        assert_eq!((claimed[0].claim.message, claimed[0].claim.attempt), (ids[id], number), "{target}");
    }
    for target in ["dead", "scheduled", "expiring", "delivered", "discarded", "cancelled"] {
        assert!(node.claim(target, 5).await.is_empty(), "{target}");
    }
    node.store.replay(ids[1], deadline()).await.unwrap();
    assert_eq!(node.claim("dead", 5).await.len(), 1);
    node.end().await;
    base.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_cut_off_goes_on() {
    let (folder, base, clock) = (tempfile::tempdir().unwrap(), Base::empty().await, Arc::default());
    let embedded = Embedded::open(folder.path(), &clock).await;
    let mut ids = Vec::new();
    for number in 0..2_600_usize {
        let key = key(&format!("key{number:05}"), 3);
        ids.push(NewMessage {
            idempotency: key,
            ..embedded.message(if number % 3 == 0 { "a" } else { "b" })
        });
    }
    for chunk in ids.chunks(500) {
        let sent = embedded.store.accept(chunk.to_vec(), AcceptMode::Each, deadline()).await.unwrap();
        assert!(sent.iter().all(Result::is_ok));
    }
    embedded.close().await;

    // Before a part, at its end when nobody knows whether it was written, and in the keys.
    let proxy = Proxy::before(&base.url).await;
    for (messages, keys, needle) in [
        (0, 0, "BEGIN"),
        (1_000, 0, "COMMIT"),
        (2_600, 0, "COMMIT"),
        (2_600, 2_000, "BEGIN"),
        (2_600, 2_600, "COMMIT"),
    ] {
        let cuts = proxy.cuts();
        let mut armed = false;
        let stopped = run(folder.path(), proxy.url(), |done| {
            let there = done.messages >= messages && done.keys >= keys.min(2_600);
            if there && !std::mem::replace(&mut armed, there) {
                proxy.cut_answer_to(needle, false);
            }
        });
        let stopped = stopped.await.unwrap_err();
        assert!(matches!(&stopped, copy::Error::Target(ImportError::Interrupted(_))), "{stopped}");
        assert_eq!(proxy.cuts(), cuts + 1);
        // No hub takes it for whole.
        let refused = prepare(&base.secret(), deadline()).await.unwrap_err();
        assert!(matches!(refused, SetupError::HalfCopied) && refused.is_final(), "{refused}");
        until("the server has let go of it", async || {
            base.number(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'message-hub-store-copy' \
                         AND datname = current_database()",
            )
            .await
                == 0
        })
        .await;
    }
    let done = run(folder.path(), &base.url, |_| {}).await.unwrap();
    assert_eq!((done.messages, done.open), (2_600, 2_600));
    assert_eq!(base.number("SELECT count(*) FROM messages").await, 2_600);
    assert_eq!(base.number("SELECT count(DISTINCT key) FROM idempotency").await, 2_600);
    base.audit().await;
    prepare(&base.secret(), deadline()).await.unwrap();
    // Once more, it is said that it is done.
    let walk = Walk::open(folder.path()).await.unwrap();
    let (_, standing) = begin(&base, origin(&walk), false).await.unwrap();
    assert_eq!(standing, Standing::Finished(done));
}

/// As one does that was started while the database was away, and so was not refused at its start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_does_nothing_beside_a_copy_that_is_not_finished() {
    let base = Base::migrated().await;
    base.sql("INSERT INTO store_copy (cluster, node, entry) VALUES ('1', 1, 1)").await;
    let hub = Node::start(&base.url, 1);
    let refused = hub.accept_within(hub.message("a"), Duration::from_secs(5)).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Unavailable { reason, .. } if reason.contains("copy")),
        "{refused}"
    );
    assert_eq!(base.number("SELECT count(*) FROM messages").await, 0);
    base.sql("UPDATE store_copy SET finished_at = hub_now()").await;
    until("it accepts", || async { hub.accept(hub.message("a")).await.is_ok() }).await;
    hub.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_belong_together_is_refused() {
    let base = Base::migrated().await;
    let mine = Origin { cluster: 5, node: 1, entry: 40 };
    let node = Node::start(&base.url, 1);
    node.accept(node.message("target")).await.unwrap();
    let refused = begin(&base, mine, false).await.err().unwrap();
    assert!(matches!(refused, ImportError::InUse(_)), "{refused}");
    node.end().await;
    until("the hub has gone", async || {
        !matches!(begin(&base, mine, false).await.err(), Some(ImportError::InUse(_)))
    })
    .await;
    for start_over in [false, true] {
        let refused = begin(&base, mine, start_over).await.err().unwrap();
        assert!(matches!(refused, ImportError::Refused(Standing::Occupied)), "{refused}");
    }

    let base = Base::empty().await;
    assert_eq!(Import::look(&base.secret(), mine, &RealClock).await.unwrap(), Standing::Empty);
    let (_, standing) = begin(&base, mine, false).await.unwrap();
    assert_eq!(standing, Standing::Empty);
    let look = async |origin| Import::look(&base.secret(), origin, &RealClock).await.unwrap();
    assert!(matches!(look(mine).await, Standing::Part(_)));
    let later = Origin { entry: 41, ..mine };
    let other = Origin { node: 2, ..mine };
    assert_eq!(look(later).await, Standing::Outdated(mine));
    assert_eq!(look(other).await, Standing::Foreign(mine));
    let refused = begin(&base, later, false).await.err().unwrap();
    assert!(matches!(refused, ImportError::Refused(Standing::Outdated(_))), "{refused}");
    let (_, standing) = begin(&base, later, true).await.unwrap();
    assert_eq!((standing, look(later).await), (Standing::Empty, Standing::Part(Done::default())));
    base.sql("UPDATE store_copy SET copied_at = now(), finished_at = now()").await;
    let refused = begin(&base, mine, true).await.err().unwrap();
    assert!(matches!(refused, ImportError::Refused(Standing::Other(_))), "{refused}");
}
