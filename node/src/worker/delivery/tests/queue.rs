//! A delivery queue in memory, with faults on demand.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hub_core::delivery::{Claim, SettleOutcome, Settlement};
use hub_core::id::{MessageId, NodeId, ServiceName};
use hub_core::message::{Message, Status};
use hub_core::port::{Claimed, Clock, DeliveryQueue, QueueSignal, Slots, StoreError, Want};
use hub_core::time::Timestamp;
use tokio::sync::{mpsc, watch};

pub(super) const NODE: NodeId = NodeId(7);

/// A message and its fate.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) message: Message,
    pub(super) status: Status,
    pub(super) due: Timestamp,
    pub(super) claim: Option<Claim>,
    pub(super) attempt: u32,
    pub(super) retry_count: u32,
    /// Every settlement that took effect.
    pub(super) ends: Vec<Settlement>,
}

#[derive(Default)]
struct State {
    rows: BTreeMap<MessageId, Row>,
    claims: Vec<Vec<Want>>,
    settles: Vec<usize>,
}

pub(super) struct FakeQueue {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    signals: mpsc::UnboundedSender<QueueSignal>,
    taken: tokio::sync::Mutex<mpsc::UnboundedReceiver<QueueSignal>>,
    clock: Arc<dyn Clock>,
    /// So many of the next settles fail, certainly without effect.
    pub(super) refuse_settles: AtomicU32,
    /// So many of the next settles take effect, but their answer is lost.
    pub(super) lose_settle_answers: AtomicU32,
    /// So many of the next claims fail.
    pub(super) refuse_claims: AtomicU32,
}

impl FakeQueue {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let (signals, taken) = mpsc::unbounded_channel();
        Arc::new(Self {
            state: Mutex::default(),
            changes: watch::Sender::new(0),
            signals,
            taken: tokio::sync::Mutex::new(taken),
            clock,
            refuse_settles: AtomicU32::new(0),
            lose_settle_answers: AtomicU32::new(0),
            refuse_claims: AtomicU32::new(0),
        })
    }

    pub(super) fn signal(&self, signal: QueueSignal) {
        self.signals.send(signal).unwrap();
    }

    /// Accepts as a store does: claimed at once if a slot is free.
    pub(super) fn accept(&self, message: Message, slots: &dyn Slots) {
        let now = self.clock.now();
        let mut row = Row {
            status: Status::Pending,
            due: now,
            claim: None,
            attempt: 0,
            retry_count: 0,
            ends: Vec::new(),
            message,
        };
        let signal = match slots.try_reserve(&row.message.target) {
            Some(lease) => QueueSignal::Claimed(vec![claim(&mut row, now.plus(lease))]),
            None => QueueSignal::Due(row.message.target.clone()),
        };
        self.state.lock().unwrap().rows.insert(row.message.id, row);
        self.signal(signal);
    }

    /// Puts a message there that was accepted before this node delivered, without a word.
    pub(super) fn put(&self, message: Message, due: Timestamp) {
        let row = Row {
            status: Status::Pending,
            due,
            claim: None,
            attempt: 0,
            retry_count: 0,
            ends: Vec::new(),
            message,
        };
        self.state.lock().unwrap().rows.insert(row.message.id, row);
    }

    /// Puts a message there that is claimed already and hands it over.
    pub(super) fn hand_over(&self, message: Message, lease_end: Timestamp) {
        self.put(message.clone(), Timestamp::EPOCH);
        let claimed = {
            let mut state = self.state.lock().unwrap();
            claim(state.rows.get_mut(&message.id).unwrap(), lease_end)
        };
        self.signal(QueueSignal::Claimed(vec![claimed]));
    }

    /// The lease of a claim runs out.
    pub(super) fn lose_claim(&self, id: MessageId) {
        self.state.lock().unwrap().rows.get_mut(&id).unwrap().claim = None;
    }

    pub(super) fn row(&self, id: MessageId) -> Row {
        self.state.lock().unwrap().rows[&id].clone()
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        self.state.lock().unwrap().rows.values().cloned().collect()
    }

    pub(super) fn claims(&self) -> Vec<Vec<Want>> {
        self.state.lock().unwrap().claims.clone()
    }

    /// Sizes of the settled batches.
    pub(super) fn settles(&self) -> Vec<usize> {
        self.state.lock().unwrap().settles.clone()
    }

    /// Waits until the rows are as wanted; looked at after each settle and now and then.
    pub(super) async fn wait(&self, what: &str, done: impl Fn(&[Row]) -> bool) {
        let mut changes = self.changes.subscribe();
        let waiting = async {
            while !done(&self.rows()) {
                let _ = tokio::time::timeout(Duration::from_millis(100), changes.changed()).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), waiting).await.is_err() {
            panic!("waited for {what} in vain: {:#?}", self.rows());
        }
    }
}

fn claim(row: &mut Row, lease_end: Timestamp) -> Claimed {
    row.attempt += 1;
    row.status = Status::Delivering;
    let claim = Claim { message: row.message.id, owner: NODE, term: 1, attempt: row.attempt, lease_end };
    row.claim = Some(claim.clone());
    Claimed { claim, message: row.message.clone(), retry_count: row.retry_count }
}

fn take_one(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

fn is_open(row: &Row) -> bool {
    row.claim.is_none() && matches!(row.status, Status::Pending | Status::Retrying)
}

#[async_trait]
impl DeliveryQueue for FakeQueue {
    async fn next(&self) -> QueueSignal {
        match self.taken.lock().await.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }

    async fn claim(&self, wants: Vec<Want>, _deadline: Instant) -> Result<Vec<Claimed>, StoreError> {
        tokio::task::yield_now().await;
        let mut state = self.state.lock().unwrap();
        state.claims.push(wants.clone());
        if take_one(&self.refuse_claims) {
            return Err(StoreError::Overloaded);
        }
        let now = self.clock.now();
        let mut claimed = Vec::new();
        for want in wants {
            let due = |row: &&mut Row| is_open(row) && row.message.target == want.target && row.due <= now;
            let rows = state.rows.values_mut().filter(due).take(usize::try_from(want.count).unwrap());
            claimed.extend(rows.map(|row| claim(row, now.plus(want.lease))));
        }
        Ok(claimed)
    }

    async fn settle(
        &self,
        settlements: Vec<Settlement>,
        _deadline: Instant,
    ) -> Result<Vec<bool>, StoreError> {
        tokio::task::yield_now().await;
        if take_one(&self.refuse_settles) {
            return Err(StoreError::Unavailable { reason: "test".to_owned(), retryable: true });
        }
        let mut state = self.state.lock().unwrap();
        state.settles.push(settlements.len());
        let results = settlements.into_iter().map(|end| settle(&mut state.rows, end)).collect();
        drop(state);
        self.changes.send_modify(|change| *change += 1);
        if take_one(&self.lose_settle_answers) {
            return Err(StoreError::Unknown("test".to_owned()));
        }
        Ok(results)
    }

    async fn due(&self) -> Result<(Vec<ServiceName>, Option<Timestamp>), StoreError> {
        let now = self.clock.now();
        let rows = self.rows();
        let open = || rows.iter().filter(|row| is_open(row));
        let mut targets: Vec<_> =
            open().filter(|row| row.due <= now).map(|row| row.message.target.clone()).collect();
        targets.dedup();
        Ok((targets, open().map(|row| row.due).filter(|due| *due > now).min()))
    }
}

fn settle(rows: &mut BTreeMap<MessageId, Row>, end: Settlement) -> bool {
    let row = rows.get_mut(&end.claim.message).unwrap();
    if row.claim.as_ref() != Some(&end.claim) {
        return false;
    }
    row.claim = None;
    row.status = match &end.outcome {
        SettleOutcome::Delivered => Status::Delivered,
        SettleOutcome::Dead(_) => Status::DeadLetter,
        SettleOutcome::Expired => Status::Expired,
        SettleOutcome::Released => {
            row.attempt -= 1;
            Status::Pending
        }
        SettleOutcome::RetryAt { at, counted } => {
            row.due = *at;
            row.retry_count += u32::from(*counted);
            Status::Retrying
        }
    };
    row.ends.push(end);
    true
}
