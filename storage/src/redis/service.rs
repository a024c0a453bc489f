//! The shared cache as it is asked: Redis while it answers, this node by itself while it does not. Nobody waits for Redis
//! longer than the set time, and only until the first who did.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hub_core::id::MessageId;
use hub_core::limit::{Ask, Verdict};
use hub_core::message::Record;
use hub_core::port::{CacheError, Clock, IdSource, SharedCache, can_be_shared};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::fault::Fault;
use super::link::Link;
use super::options::{Options, Ports};
use super::standing::{Counters, Counts, Standing};
use crate::memory::LocalCache;

/// How often Redis is asked when nobody else does, so that its end is noticed and its connection stays open.
const QUIET: Duration = Duration::from_secs(5);
/// How long the service, for which nobody waits, gives Redis.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long this node decides by itself at least; doubled while Redis keeps failing.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Redis that answered this long counts as sound again.
const SOUND: Duration = Duration::from_secs(15);

/// What requests ask. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

/// Watches over Redis.
pub struct Service(Arc<Inner>);

struct Inner {
    link: Link,
    local: LocalCache,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    /// As people may see it.
    place: String,
    /// Redis decides: the same as `standing`, without its lock.
    shared: AtomicBool,
    standing: Mutex<Standing>,
    /// Redis failed: the service looks after it.
    fallen: Notify,
    counters: Counters,
}

pub(super) fn build(link: Link, options: Options, ports: Ports) -> (Service, Handle) {
    let inner = Arc::new(Inner {
        link,
        local: ports.local,
        clock: ports.clock,
        ids: ports.ids,
        place: options.endpoint.to_string(),
        shared: AtomicBool::new(false),
        standing: Mutex::new(Standing::Starting),
        fallen: Notify::new(),
        counters: Counters::default(),
    });
    (Service(Arc::clone(&inner)), Handle(inner))
}

impl Inner {
    fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Acquire)
    }

    /// Changes who decides; who did before.
    fn stand(&self, standing: Standing) -> Standing {
        let mut current = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.store(standing == Standing::Shared, Ordering::Release);
        std::mem::replace(&mut *current, standing)
    }

    /// Redis answers.
    fn rise(&self) {
        self.stand(Standing::Shared);
        tracing::info!(
            redis = self.place,
            "redis is the shared cache: rates are limited for the whole cluster"
        );
    }

    /// Redis failed. Said once, until it answers again.
    fn fall(&self, fault: &Fault) {
        let before = self.stand(Standing::Local(fault.to_string()));
        if matches!(before, Standing::Local(_)) {
            return;
        }
        Counters::count(&self.counters.falls);
        tracing::warn!(
            redis = self.place,
            reason = %fault,
            "redis is no shared cache for now: each node limits rates by itself, to its share; nothing else changes"
        );
        self.fallen.notify_one();
    }
}

impl Service {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.0.watch() => {}
        }
    }
}

impl Inner {
    async fn watch(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            while let Err(fault) = self.link.prove(PATIENCE).await {
                self.fall(&fault);
                self.leave_connection();
                self.rest(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            self.rise();
            let risen = self.clock.instant();
            self.until_it_fails().await;
            let sound = self.clock.instant().saturating_duration_since(risen) >= SOUND;
            pause = if sound { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            self.leave_connection();
            self.rest(pause).await;
        }
    }

    async fn until_it_fails(&self) {
        while self.is_shared() {
            tokio::select! {
                () = self.fallen.notified() => {}
                () = tokio::time::sleep(QUIET) => {
                    if let Err(fault) = self.link.prove(PATIENCE).await {
                        self.fall(&fault);
                    }
                }
            }
        }
    }

    fn leave_connection(&self) {
        if let Err(fault) = self.link.renew() {
            tracing::debug!(%fault, "no new connection could be prepared");
        }
    }

    /// So long, and up to a quarter more: nodes must not come back all at once.
    async fn rest(&self, pause: Duration) {
        let quarter = u64::try_from(pause.as_millis() / 4).unwrap_or(0);
        tokio::time::sleep(pause + Duration::from_millis(self.ids.below(quarter))).await;
    }
}

impl Handle {
    /// Who decides now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.0.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What happened since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.counters.read()
    }

    /// Where Redis is, without user and password.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.0.place
    }
}

/// Never fails: what Redis does not say, this node decides.
#[async_trait]
impl SharedCache for Handle {
    async fn take(&self, ask: &Ask) -> Result<Verdict, CacheError> {
        let inner = &self.0;
        if inner.is_shared() {
            match inner.link.take(ask).await {
                Ok(verdict) => {
                    Counters::count(&inner.counters.shared);
                    return Ok(verdict);
                }
                Err(fault) => inner.fall(&fault),
            }
        }
        Counters::count(&inner.counters.local);
        Ok(inner.local.rule(ask))
    }

    async fn ended(&self, id: MessageId) -> Result<Option<Record>, CacheError> {
        let inner = &self.0;
        if !inner.is_shared() {
            return Ok(None);
        }
        let found = inner.link.ended(id).await.unwrap_or_else(|fault| {
            inner.fall(&fault);
            None
        });
        let found = found.filter(|record| record.message.id == id && can_be_shared(record.status));
        Counters::count(if found.is_some() { &inner.counters.hits } else { &inner.counters.misses });
        Ok(found)
    }

    async fn keep_ended(&self, record: &Record, time: Duration) -> Result<(), CacheError> {
        let inner = &self.0;
        if inner.is_shared()
            && can_be_shared(record.status)
            && let Err(fault) = inner.link.keep_ended(record, time).await
        {
            inner.fall(&fault);
        }
        Ok(())
    }
}
