//! A shared cache in memory, with the real rule on a clock that is set.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hub_core::id::MessageId;
use hub_core::limit::{Ask, Key, Meter, Verdict, decide};
use hub_core::message::Record;
use hub_core::port::{CacheError, SharedCache};

#[derive(Default)]
pub struct FakeCache {
    /// Milliseconds.
    pub now: AtomicU64,
    /// It answers nothing.
    pub down: AtomicBool,
    /// What was asked.
    pub asked: Mutex<Vec<Ask>>,
    /// What is kept, and for how long it was to be.
    pub kept: Mutex<HashMap<MessageId, (Record, Duration)>>,
    meters: Mutex<HashMap<Key, Meter>>,
}

impl FakeCache {
    fn check(&self) -> Result<(), CacheError> {
        if self.down.load(Ordering::SeqCst) { Err(CacheError("down".to_owned())) } else { Ok(()) }
    }
}

#[async_trait]
impl SharedCache for FakeCache {
    async fn take(&self, ask: &Ask) -> Result<Verdict, CacheError> {
        self.check()?;
        self.asked.lock().unwrap().push(ask.clone());
        let mut kept = self.meters.lock().unwrap();
        let mut meters: Vec<Meter> =
            ask.demands().map(|demand| kept.get(&demand.key).copied().unwrap_or_default()).collect();
        let verdict = decide(ask, &mut meters, self.now.load(Ordering::SeqCst) * 1_000_000);
        kept.extend(ask.demands().map(|demand| demand.key.clone()).zip(meters));
        Ok(verdict)
    }

    async fn ended(&self, id: MessageId) -> Result<Option<Record>, CacheError> {
        self.check()?;
        Ok(self.kept.lock().unwrap().get(&id).map(|(record, _)| record.clone()))
    }

    async fn keep_ended(&self, record: &Record, time: Duration) -> Result<(), CacheError> {
        self.check()?;
        self.kept.lock().unwrap().insert(record.message.id, (record.clone(), time));
        Ok(())
    }
}
