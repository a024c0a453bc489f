//! The store when proposals fail, answers are lost and leadership moves: nothing is done twice, nothing that was not done is
//! said to be, and no message waits for the end of a lease that nobody uses.

#![cfg(test)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hub_core::delivery::{AttemptOutcome, Claim, SettleOutcome, Settlement};
use hub_core::id::{MessageId, NodeId, RequestId, ServiceName};
use hub_core::message::{Attempt, NewMessage, Status};
use hub_core::port::{
    AcceptMode, AppliedMark, CancelOutcome, Clock, Committed, Consistency, DeliveryQueue, Entry, Leadership,
    MessageStore, ProposeError, QueueSignal, ReadError, Replicator, StateMachine, StoreError, Submitted,
    Want,
};
use hub_core::time::Timestamp;
use hub_storage::sqlite::command::{Insert, Item};
use hub_storage::sqlite::{
    Command, DiskLimit, Feed, Options, Reply, SqliteMachine, Store, StoreOptions, StorePorts,
};
use hub_storage::suite::{Ids, LocalReplicator, ManualClock, TestSlots, plain_message};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

const ME: NodeId = NodeId(1);
const LEASE: Duration = Duration::from_secs(20);

/// What becomes of a proposal.
#[derive(Clone, Debug)]
enum Fault {
    /// It is written.
    None,
    /// It is written, but the answer is lost.
    AnswerLost,
    /// It is not written.
    Refused(ProposeError),
}

/// How a proposal came.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Anywhere(RequestId),
    InTerm(u64, RequestId),
}

/// A local replicator that does as it is told with the next proposals, and writes down how they came.
struct Faulty {
    local: Arc<LocalReplicator<SqliteMachine>>,
    tasks: TaskTracker,
    plan: Mutex<VecDeque<Fault>>,
    seen: Mutex<Vec<Way>>,
}

impl Faulty {
    fn next(&self, way: Way) -> Fault {
        self.seen.lock().unwrap().push(way);
        self.plan.lock().unwrap().pop_front().unwrap_or(Fault::None)
    }

    fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        self.plan.lock().unwrap().extend(faults);
    }

    fn seen(&self) -> Vec<Way> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

fn lost<T>(written: Result<T, ProposeError>) -> Result<T, ProposeError> {
    written.and_then(|_| Err(ProposeError::Unknown("the answer was lost".to_owned())))
}

#[async_trait]
impl Replicator<Command, Reply> for Faulty {
    async fn propose(
        &self,
        proposal: Submitted<Command>,
        deadline: Instant,
    ) -> Result<Committed<Reply>, ProposeError> {
        match self.next(Way::Anywhere(proposal.request)) {
            Fault::None => self.local.propose(proposal, deadline).await,
            Fault::AnswerLost => lost(self.local.propose(proposal, deadline).await),
            Fault::Refused(error) => Err(error),
        }
    }

    /// What was proposed is written also if nobody waits for it.
    async fn propose_in_term(
        &self,
        term: u64,
        proposals: Vec<Submitted<Command>>,
        deadline: Instant,
    ) -> Result<Vec<Committed<Reply>>, ProposeError> {
        let fault = self.next(Way::InTerm(term, proposals[0].request));
        if let Fault::Refused(error) = fault {
            return Err(error);
        }
        let local = Arc::clone(&self.local);
        let write = async move { local.propose_in_term(term, proposals, deadline).await };
        let written = self.tasks.spawn(write).await.unwrap();
        if matches!(fault, Fault::AnswerLost) { lost(written) } else { written }
    }

    async fn read_barrier(&self, deadline: Instant) -> Result<u64, ReadError> {
        self.local.read_barrier(deadline).await
    }

    fn leadership(&self) -> Leadership {
        self.local.leadership()
    }

    async fn leadership_changed(&self, seen: Leadership) -> Leadership {
        self.local.leadership_changed(seen).await
    }
}

/// Nothing is refused for want of disk.
const NO_LIMIT: DiskLimit = DiskLimit { bytes: 0, percent: 0 };

struct Stage {
    store: Store,
    replicator: Arc<Faulty>,
    clock: Arc<ManualClock>,
    slots: Arc<TestSlots>,
    folder: tempfile::TempDir,
}

/// Runs `test` with a store that runs.
async fn on_stage<F: Future<Output = ()>>(test: impl FnOnce(Arc<Stage>) -> F) {
    on_stage_with(tempfile::tempdir().unwrap(), NO_LIMIT, test).await;
}

async fn on_stage_with<F: Future<Output = ()>>(
    folder: tempfile::TempDir,
    disk_limit: DiskLimit,
    test: impl FnOnce(Arc<Stage>) -> F,
) {
    let (clock, slots) = (Arc::new(ManualClock::default()), Arc::new(TestSlots::default()));
    let feed = Feed::new(ME, slots.clone());
    let options = Options { folder: folder.path().join("db"), readers: 2 };
    let machine = options.open(feed.clone()).await.unwrap();
    let reader = machine.reader();
    let local = Arc::new(LocalReplicator::new(machine, ME, feed.clone(), clock.clone()));
    let (tasks, plan, seen) = (TaskTracker::new(), Mutex::default(), Mutex::default());
    let replicator = Arc::new(Faulty { local, tasks, plan, seen });
    let mut options = StoreOptions::new(folder.path().to_owned());
    options.disk_limit = disk_limit;
    let (service, store) = options.build(StorePorts {
        replicator: replicator.clone(),
        reader,
        feed,
        clock: clock.clone(),
        ids: Arc::new(Ids::default()),
    });
    let stop = CancellationToken::new();
    let stage = Arc::new(Stage { store, replicator, clock, slots, folder });
    let run = async {
        test(stage).await;
        stop.cancel();
    };
    tokio::join!(service.run(stop.clone()), run);
}

fn target() -> ServiceName {
    "target".parse().unwrap()
}

fn message(number: u64, now: Timestamp) -> NewMessage {
    let id = MessageId(Uuid::from_u128((0x0190_0000_0000_7000_8000_u128 << 48) | u128::from(number)));
    let content = format!("{{\"n\":{number}}}").into();
    NewMessage { content, ..plain_message(id, "sender".parse().unwrap(), target(), now) }
}

impl Stage {
    fn deadline(&self) -> Instant {
        self.clock.instant() + Duration::from_secs(60)
    }

    fn message(&self, number: u64) -> NewMessage {
        message(number, self.clock.now())
    }

    async fn accept(&self, number: u64) -> MessageId {
        let message = self.message(number);
        let results = self.store.accept(vec![message], AcceptMode::Each, self.deadline()).await.unwrap();
        results[0].as_ref().unwrap().id
    }

    async fn claim(&self) -> Result<Vec<hub_core::port::Claimed>, StoreError> {
        let want = Want { target: target(), count: 10, lease: LEASE };
        self.store.claim(vec![want], self.deadline()).await
    }

    async fn status(&self, id: MessageId) -> Status {
        let record = self.store.get(id, Consistency::Stale, self.deadline()).await.unwrap();
        record.unwrap().status
    }

    /// Waits until the message stands so.
    async fn becomes(&self, id: MessageId, wanted: Status) {
        let wait = async {
            while self.status(id).await != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), wait).await.is_err() {
            panic!("{id} is {} and not {wanted}", self.status(id).await);
        }
    }

    async fn signal(&self) -> QueueSignal {
        tokio::time::timeout(Duration::from_secs(60), self.store.next()).await.unwrap()
    }

    fn follow(&self, term: u64) {
        self.replicator.local.lead(Leadership { term, leader: Some(NodeId(2)), ready: false });
    }
}

fn delivered(claim: &Claim, now: Timestamp) -> Settlement {
    let attempt = Attempt {
        number: claim.attempt,
        node: claim.owner,
        instance: None,
        started_at: now,
        duration_ms: 3,
        outcome: AttemptOutcome::Delivered,
        http_status: Some(200),
        error_class: None,
        response: None,
    };
    let outcome = SettleOutcome::Delivered;
    Settlement { claim: claim.clone(), outcome, attempt: Some(attempt), error: None }
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_request() {
    on_stage(|stage| async move {
        stage.replicator.plan([Fault::AnswerLost, Fault::AnswerLost]);
        let id = stage.accept(1).await;
        let ways = stage.replicator.seen();
        assert_eq!(ways.len(), 3);
        assert!(ways.iter().all(|way| *way == ways[0]), "{ways:?}");
        assert_eq!(stage.store.backlog(&target()).await.unwrap().accepted_total, 1);
        stage.replicator.plan([Fault::AnswerLost]);
        let cancelled = stage.store.cancel(id, stage.deadline()).await.unwrap();
        assert_eq!(cancelled, CancelOutcome::Cancelled { may_have_arrived: false });
    })
    .await;
}

#[tokio::test]
async fn an_unknown_outcome_stays_unknown_until_it_is_known() {
    on_stage(|stage| async move {
        // The second try says only about itself that it was not written.
        stage.replicator.plan([Fault::AnswerLost, Fault::Refused(ProposeError::NoLeader)]);
        let answer = stage.store.accept(vec![stage.message(1)], AcceptMode::Each, stage.deadline()).await;
        assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
        stage.replicator.plan([Fault::Refused(ProposeError::NoLeader)]);
        let answer = stage.store.accept(vec![stage.message(2)], AcceptMode::Each, stage.deadline()).await;
        assert!(matches!(answer, Err(StoreError::Unavailable { retryable: true, .. })), "{answer:?}");
        // The deadline passes while nobody knows.
        stage.replicator.plan(vec![Fault::AnswerLost; 1_000]);
        let soon = stage.clock.instant() + Duration::from_millis(100);
        let answer = stage.store.accept(vec![stage.message(3)], AcceptMode::Each, soon).await;
        assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
    })
    .await;
}

#[tokio::test]
async fn settlements_go_through_the_new_leader_and_take_effect_once() {
    on_stage(|stage| async move {
        let ids = [stage.accept(1).await, stage.accept(2).await];
        let claimed = stage.claim().await.unwrap();
        stage.replicator.seen();
        // As the leader, whose first answer is lost: the repeat is recognised by its attempt.
        stage.replicator.plan([Fault::AnswerLost]);
        let now = stage.clock.now();
        let settled = stage.store.settle(vec![delivered(&claimed[0].claim, now)], stage.deadline()).await;
        assert_eq!(settled.unwrap(), [true]);
        let ways = stage.replicator.seen();
        assert!(
            matches!(ways[..], [Way::InTerm(1, first), Way::InTerm(1, again)] if first == again),
            "{ways:?}"
        );
        // Leadership moves between the look and the proposal: it goes to whoever leads, and the claim still holds.
        stage.replicator.plan([Fault::Refused(ProposeError::LeadershipMoved)]);
        let settle = stage.store.settle(vec![delivered(&claimed[1].claim, now)], stage.deadline());
        let moved = async {
            while stage.replicator.seen().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            stage.follow(2);
        };
        let (settled, ()) = tokio::join!(settle, moved);
        assert_eq!(settled.unwrap(), [true]);
        let ways = stage.replicator.seen();
        assert!(matches!(ways[..], [Way::Anywhere(_)]), "{ways:?}");
        for id in ids {
            assert_eq!(stage.status(id).await, Status::Delivered);
        }
        let record = stage.store.get(ids[0], Consistency::Stale, stage.deadline()).await.unwrap().unwrap();
        assert_eq!(record.attempts.len(), 1);
        // Nobody leads for long: certainly not written, and said so.
        stage.replicator.plan([Fault::Refused(ProposeError::NoLeader)]);
        let late = stage.store.settle(vec![delivered(&claimed[0].claim, now)], stage.deadline()).await;
        assert!(matches!(late, Err(StoreError::Unavailable { retryable: true, .. })), "{late:?}");
    })
    .await;
}

#[tokio::test]
async fn settlements_in_parts_are_not_certainly_undone_when_one_part_fails() {
    on_stage(|stage| async move {
        stage.accept(1).await;
        let claimed = stage.claim().await.unwrap();
        let one = delivered(&claimed[0].claim, stage.clock.now());
        // More than one entry takes.
        stage.replicator.plan([Fault::None, Fault::Refused(ProposeError::NoLeader)]);
        let answer = stage.store.settle(vec![one; 1_200], stage.deadline()).await;
        assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
    })
    .await;
}

#[tokio::test]
async fn claims_whose_answer_is_lost_are_given_back() {
    on_stage(|stage| async move {
        let ids = [stage.accept(1).await, stage.accept(2).await];
        stage.replicator.plan([Fault::AnswerLost]);
        let answer = stage.claim().await;
        assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
        // Without any time passing.
        for id in ids {
            stage.becomes(id, Status::Pending).await;
        }
        let again = stage.claim().await.unwrap();
        assert_eq!(again.iter().map(|one| one.claim.attempt).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(stage.store.backlog(&target()).await.unwrap().in_flight, 2);
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_not_waited_for_is_given_back() {
    on_stage(|stage| async move {
        let id = stage.accept(1).await;
        // Dropped somewhere on its way: before it is written, after, and while the messages are read.
        let mut taken = None;
        for polls in 1..1_000 {
            let mut claim = Box::pin(stage.claim());
            for _ in 0..polls {
                if let Poll::Ready(claimed) = futures::poll!(&mut claim) {
                    taken = claimed.unwrap().pop();
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(claim);
            if taken.is_some() {
                break;
            }
            stage.becomes(id, Status::Pending).await;
        }
        let claim = taken.unwrap().claim;
        let release = Settlement { claim, outcome: SettleOutcome::Released, attempt: None, error: None };
        assert_eq!(stage.store.settle(vec![release], stage.deadline()).await.unwrap(), [true]);
        let cancelled = stage.store.cancel(id, stage.deadline()).await.unwrap();
        assert_eq!(cancelled, CancelOutcome::Cancelled { may_have_arrived: false }, "nothing was sent");
    })
    .await;
}

#[tokio::test]
async fn messages_claimed_at_accept_wait_for_no_lease_when_leadership_is_lost() {
    on_stage(|stage| async move {
        assert_eq!(stage.signal().await, QueueSignal::Started);
        stage.slots.grant(&target(), 2);
        let (first, second) = (stage.accept(1).await, stage.accept(2).await);
        let QueueSignal::Claimed(taken) = stage.signal().await else { panic!("no claims") };
        let third = {
            stage.slots.grant(&target(), 1);
            stage.accept(3).await
        };
        let taken: Vec<_> = taken.iter().map(|one| one.message.id).collect();
        assert_eq!(taken, [first, second]);
        stage.follow(2);
        // The third was not handed over yet: it is free at once. The others may be under way.
        stage.becomes(third, Status::Pending).await;
        assert_eq!(stage.signal().await, QueueSignal::Stopped);
        assert_eq!(stage.status(first).await, Status::Delivering);
        assert_eq!(stage.slots.free(&target()), 1);
        let cancelled = stage.store.cancel(third, stage.deadline()).await.unwrap();
        assert_eq!(cancelled, CancelOutcome::Cancelled { may_have_arrived: false });
        // One that is under way when its lease ends may have arrived.
        stage.clock.advance(LEASE);
        let cancelled = stage.store.cancel(first, stage.deadline()).await.unwrap();
        assert_eq!(cancelled, CancelOutcome::Cancelled { may_have_arrived: true });
    })
    .await;
}

#[tokio::test]
async fn a_damaged_message_does_not_hold_up_the_others() {
    on_stage(|stage| async move {
        let ids = [stage.accept(1).await, stage.accept(2).await, stage.accept(3).await];
        let database = stage.folder.path().join("db").join("messages-0.db");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database);
        let mut connection =
            <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
        sqlx::query("UPDATE messages SET content = 'damaged' WHERE seq = 2")
            .execute(&mut connection)
            .await
            .unwrap();
        let claimed: Vec<_> = stage.claim().await.unwrap().iter().map(|one| one.message.id).collect();
        assert_eq!(claimed, [ids[0], ids[2]]);
        let shown = stage.store.get(ids[1], Consistency::Stale, stage.deadline()).await;
        assert!(matches!(shown, Err(StoreError::Corrupt(_))), "{shown:?}");
        // It is not asked for again and again.
        assert!(stage.claim().await.unwrap().is_empty());
        let (due, next) = stage.store.due().await.unwrap();
        assert_eq!((due, next), (vec![], Some(stage.clock.now().plus(LEASE))));
        stage.clock.advance(Duration::from_secs(600));
        assert_eq!(stage.store.due().await.unwrap().0, [target()]);
    })
    .await;
}

#[tokio::test]
async fn without_free_disk_new_messages_are_refused_and_all_else_goes_on() {
    let full = DiskLimit { bytes: u64::MAX, percent: 0 };
    on_stage_with(tempfile::tempdir().unwrap(), full, |stage| async move {
        let refused = stage.store.accept(vec![stage.message(1)], AcceptMode::Each, stage.deadline()).await;
        assert!(matches!(refused, Err(StoreError::DiskLow)), "{refused:?}");
        assert_eq!(stage.replicator.seen(), [], "nothing was proposed");
        // What other nodes take is replicated here, claimed and settled.
        for number in [2, 3] {
            let items = vec![Item { message: stage.message(number), claim: None }];
            let command = Command::Insert(Insert { items, atomic: false, max_backlog: 10 });
            let proposal = Submitted { request: RequestId(Uuid::nil()), command };
            stage.replicator.local.propose(proposal, stage.deadline()).await.unwrap();
        }
        let claimed = stage.claim().await.unwrap();
        assert_eq!(claimed.len(), 2);
        let end = delivered(&claimed[0].claim, stage.clock.now());
        assert_eq!(stage.store.settle(vec![end], stage.deadline()).await.unwrap(), [true]);
        stage.clock.advance(LEASE);
        let cancelled = stage.store.cancel(claimed[1].message.id, stage.deadline()).await.unwrap();
        assert_eq!(cancelled, CancelOutcome::Cancelled { may_have_arrived: true });
    })
    .await;
}

/// A database too large to be checked at the start, with a page of a table overwritten that nothing has read yet.
async fn damaged_database(folder: &std::path::Path) {
    let feed = Feed::new(ME, Arc::<TestSlots>::default());
    let options = Options { folder: folder.join("db"), readers: 1 };
    let mut machine = options.open(feed).await.unwrap();
    let now = ManualClock::default().now();
    for number in 1..=36 {
        let content = format!("\"{}\"", "x".repeat(1 << 20)).into();
        let message = NewMessage { content, ..message(number, now) };
        let items = vec![Item { message, claim: None }];
        let command = Command::Insert(Insert { items, atomic: false, max_backlog: 100 });
        let commands = vec![Submitted { request: RequestId(Uuid::nil()), command }];
        let mark = AppliedMark { index: number, opaque: vec![1].into() };
        machine.apply(vec![Entry { index: number, term: 1, now, commands }], mark).await.unwrap();
    }
    assert_eq!(machine.checkpoint().await.unwrap().index, 36);
    drop(machine);
    let database = folder.join("db").join("messages-0.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&database).read_only(true);
    let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
    let page: i64 = sqlx::query_scalar("SELECT rootpage FROM sqlite_schema WHERE name = 'attempts'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let size: i64 = sqlx::query_scalar("PRAGMA page_size").fetch_one(&mut connection).await.unwrap();
    <sqlx::SqliteConnection as sqlx::Connection>::close(connection).await.unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&database).unwrap();
    let at = (page - 1) * size;
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xee; 64], at.cast_unsigned()).unwrap();
}

#[tokio::test]
async fn damage_in_a_large_database_is_found_while_it_runs_and_stops_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    damaged_database(folder.path()).await;
    on_stage_with(folder, NO_LIMIT, |stage| async move {
        // It was opened, and takes messages until the check is through.
        let stopped = async {
            for number in 100.. {
                let soon = stage.clock.instant() + Duration::from_millis(100);
                let answer = stage.store.accept(vec![stage.message(number)], AcceptMode::Each, soon).await;
                match answer {
                    Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                    Err(error) => return error.to_string(),
                }
            }
            unreachable!()
        };
        let error = tokio::time::timeout(Duration::from_secs(60), stopped).await.unwrap();
        assert!(error.contains("damaged"), "{error}");
    })
    .await;
}
