//! Time, ids, slots and messages of the suite.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hub_core::delivery::{AttemptOutcome, Claim, SettleOutcome, Settlement};
use hub_core::id::{MessageId, NodeId, RequestId, ServiceName};
use hub_core::message::{Attempt, NewMessage, Priority, Record, Status};
use hub_core::port::{
    AcceptMode, AcceptRefusal, Accepted, Backlog, Claimed, Clock, Consistency, IdSource, Slots, Want,
};
use hub_core::time::Timestamp;
use uuid::Uuid;

use super::{Failure, Stage};

/// A lease of the suite.
pub(super) const LEASE: Duration = Duration::from_secs(20);
/// How old a message of the suite may become.
pub(super) const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A clock that moves when it is told to.
#[derive(Debug)]
pub struct ManualClock {
    millis: AtomicI64,
}

impl Default for ManualClock {
    fn default() -> Self {
        Self { millis: AtomicI64::new(1_800_000_000_000) }
    }
}

impl ManualClock {
    /// Moves the time forward.
    pub fn advance(&self, by: Duration) {
        self.millis.fetch_add(i64::try_from(by.as_millis()).unwrap_or(0), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis.load(Ordering::SeqCst))
    }

    fn wall(&self) -> Timestamp {
        self.now()
    }

    #[expect(clippy::disallowed_methods, reason = "deadlines of the suite are real")]
    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn since_boot(&self) -> Duration {
        self.now().since(Timestamp::EPOCH)
    }
}

/// The real clock, for cases against servers that run on it too.
#[derive(Debug)]
pub struct RealClock;

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        self.wall()
    }

    #[expect(clippy::disallowed_methods, reason = "the servers under test run on the real clock too")]
    fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    #[expect(clippy::disallowed_methods, reason = "deadlines are real")]
    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn since_boot(&self) -> Duration {
        self.now().since(Timestamp::EPOCH)
    }
}

/// Ids that count.
#[derive(Debug, Default)]
pub struct Ids {
    next: AtomicU64,
}

impl IdSource for Ids {
    fn message_id(&self, now: Timestamp) -> MessageId {
        message_id(now, self.next.fetch_add(1, Ordering::SeqCst))
    }

    fn request_id(&self) -> RequestId {
        RequestId(Uuid::from_u128(u128::from(self.next.fetch_add(1, Ordering::SeqCst)) + (1 << 100)))
    }

    fn below(&self, bound: u64) -> u64 {
        bound / 2
    }

    fn secret(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// A UUIDv7 of `now` with a number in it.
pub(super) fn message_id(now: Timestamp, number: u64) -> MessageId {
    let millis = u128::try_from(now.as_millis()).unwrap_or(0);
    MessageId(Uuid::from_u128((millis << 80) | (7 << 76) | (0b10 << 62) | u128::from(number)))
}

/// A message with nothing special about it, due at once.
#[must_use]
pub fn plain_message(id: MessageId, sender: ServiceName, target: ServiceName, now: Timestamp) -> NewMessage {
    NewMessage {
        id,
        sender,
        target,
        message_type: "thing.happened".into(),
        content: "1".into(),
        metadata: None,
        correlation_id: None,
        priority: Priority::default(),
        created_at: now,
        deliver_at: None,
        expires_at: None,
        too_old_at: now.plus(MAX_AGE),
        max_retries: None,
        traceparent: None,
        idempotency: None,
    }
}

/// Slots that a case hands out.
#[derive(Debug, Default)]
pub struct TestSlots {
    free: Mutex<BTreeMap<ServiceName, u32>>,
}

impl TestSlots {
    /// Makes slots free for a target.
    pub fn grant(&self, target: &ServiceName, count: u32) {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner).entry(target.clone()).or_default() += count;
    }

    /// How many are free.
    #[must_use]
    pub fn free(&self, target: &ServiceName) -> u32 {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).get(target).copied().unwrap_or(0)
    }
}

impl Slots for TestSlots {
    fn try_reserve(&self, target: &ServiceName) -> Option<Duration> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let count = free.get_mut(target).filter(|count| **count > 0)?;
        *count -= 1;
        Some(LEASE)
    }

    fn give_back(&self, target: &ServiceName) {
        self.grant(target, 1);
    }
}

/// A name, which must be one.
pub(super) fn service(text: &str) -> Result<ServiceName, Failure> {
    text.parse().map_err(|error| Failure::new(format!("{text}: {error}")))
}

impl Stage {
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Moves the time forward.
    pub(super) async fn advance(&self, by: Duration) -> Result<(), Failure> {
        self.clock.advance(by);
        match &self.moved {
            Some(moved) => moved(self.now()).await.map_err(Failure::new),
            None => Ok(()),
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.clock.instant() + Duration::from_secs(60)
    }

    /// A plain message number `number` from `sender` to `target`.
    pub(super) fn message(&self, number: u64, sender: &str, target: &str) -> Result<NewMessage, Failure> {
        let now = self.now();
        let content = format!("{{\"number\":{number}}}").into();
        let plain = plain_message(message_id(now, number), service(sender)?, service(target)?, now);
        Ok(NewMessage { content, ..plain })
    }

    pub(super) async fn accept_all(
        &self,
        messages: Vec<NewMessage>,
        mode: AcceptMode,
    ) -> Result<Vec<Result<Accepted, AcceptRefusal>>, Failure> {
        Ok(self.store.accept(messages, mode, self.deadline()).await?)
    }

    /// Accepts one message, which must be taken.
    pub(super) async fn accept(&self, message: NewMessage) -> Result<Accepted, Failure> {
        let result = self.accept_all(vec![message], AcceptMode::Each).await?.pop();
        let result = result.ok_or_else(|| Failure::new("no answer to a message".to_owned()))?;
        result.map_err(|refusal| Failure::new(format!("refused: {refusal}")))
    }

    /// Accepts plain messages with these numbers.
    pub(super) async fn send(
        &self,
        numbers: std::ops::Range<u64>,
        target: &str,
    ) -> Result<Vec<MessageId>, Failure> {
        let mut ids = Vec::new();
        for number in numbers {
            ids.push(self.accept(self.message(number, "sender", target)?).await?.id);
        }
        Ok(ids)
    }

    /// Accepts one plain message.
    pub(super) async fn send_one(&self, target: &str) -> Result<MessageId, Failure> {
        Ok(self.accept(self.message(1, "sender", target)?).await?.id)
    }

    pub(super) async fn get(&self, id: MessageId) -> Result<Record, Failure> {
        let record = self.store.get(id, Consistency::Linearizable, self.deadline()).await?;
        record.ok_or_else(|| Failure::new(format!("message {id} is not there")))
    }

    pub(super) async fn status(&self, id: MessageId) -> Result<Status, Failure> {
        Ok(self.get(id).await?.status)
    }

    pub(super) async fn claim(&self, target: &str, count: u32) -> Result<Vec<Claimed>, Failure> {
        let want = Want { target: service(target)?, count, lease: LEASE };
        Ok(self.queue.claim(vec![want], self.deadline()).await?)
    }

    /// Claims one message, which must be due.
    pub(super) async fn claim_one(&self, target: &str) -> Result<Claimed, Failure> {
        let claimed = self.claim(target, 1).await?.pop();
        claimed.ok_or_else(|| Failure::new(format!("nothing to claim for {target}")))
    }

    /// Ends an attempt; whether it took effect.
    pub(super) async fn settle(
        &self,
        claim: &Claim,
        outcome: SettleOutcome,
        attempt: AttemptOutcome,
    ) -> Result<bool, Failure> {
        let attempt = Attempt {
            number: claim.attempt,
            node: claim.owner,
            instance: None,
            started_at: self.now(),
            duration_ms: 12,
            outcome: attempt,
            http_status: None,
            error_class: None,
            response: Some("answer".into()),
        };
        let error = (outcome != SettleOutcome::Delivered).then(|| "it failed".into());
        let settlement = Settlement { claim: claim.clone(), outcome, attempt: Some(attempt), error };
        self.settle_raw(settlement).await
    }

    pub(super) async fn settle_raw(&self, settlement: Settlement) -> Result<bool, Failure> {
        let mut results = self.queue.settle(vec![settlement], self.deadline()).await?;
        results.pop().ok_or_else(|| Failure::new("no answer to a settlement".to_owned()))
    }

    pub(super) async fn deliver(&self, claimed: &Claimed) -> Result<bool, Failure> {
        self.settle(&claimed.claim, SettleOutcome::Delivered, AttemptOutcome::Delivered).await
    }

    pub(super) async fn backlog(&self, target: &str) -> Result<Backlog, Failure> {
        Ok(self.store.backlog(&service(target)?).await?)
    }
}

/// A claim of nobody, on `id`.
pub(super) fn foreign_claim(claim: &Claim) -> Claim {
    Claim { owner: NodeId(claim.owner.0 + 1), ..claim.clone() }
}
