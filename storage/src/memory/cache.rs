//! Rate limits kept by this node alone: each of the live nodes lets its share pass.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hub_core::id::MessageId;
use hub_core::limit::{Ask, Demand, Key, Meter, Verdict, decide};
use hub_core::message::Record;
use hub_core::port::{CacheError, Clock, SharedCache};

/// So many keys are kept before those with nothing to remember are looked for.
const FEW: usize = 1_024;

/// How many nodes are live now, this one included.
pub type LiveNodes = Arc<dyn Fn() -> usize + Send + Sync>;

/// The shared cache of one node: it shares nothing. Cheap to clone.
#[derive(Clone)]
pub struct LocalCache(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    nodes: LiveNodes,
    started: Instant,
    meters: Mutex<Meters>,
}

#[derive(Default)]
struct Meters {
    by_key: HashMap<Key, Meter>,
    /// At this size the full ones are dropped.
    sweep_at: usize,
}

impl LocalCache {
    /// With all permits saved. `nodes` says among how many live nodes a limit is divided.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, nodes: LiveNodes) -> Self {
        let started = clock.instant();
        Self(Arc::new(Inner { clock, nodes, started, meters: Mutex::default() }))
    }

    /// Takes this node's share of permits.
    #[must_use]
    pub fn rule(&self, ask: &Ask) -> Verdict {
        let nodes = u32::try_from((self.0.nodes)()).unwrap_or(u32::MAX);
        let own = |demand: &Demand| Demand { rate: demand.rate.share(nodes), ..demand.clone() };
        let ask = Ask {
            caller: ask.caller.as_ref().map(own),
            targets: ask.targets.iter().map(own).collect(),
            whole: ask.whole,
        };
        let elapsed = self.0.clock.instant().saturating_duration_since(self.0.started);
        let now = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let mut kept = self.meters();
        let mut meters: Vec<Meter> =
            ask.demands().map(|one| kept.by_key.get(&one.key).copied().unwrap_or_default()).collect();
        let verdict = decide(&ask, &mut meters, now);
        for (demand, meter) in ask.demands().zip(meters) {
            kept.keep(&demand.key, meter, now);
        }
        verdict
    }

    /// How many keys are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.meters().by_key.len()
    }

    fn meters(&self) -> MutexGuard<'_, Meters> {
        self.0.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meters {
    fn keep(&mut self, key: &Key, meter: Meter, now: u64) {
        if let Some(known) = self.by_key.get_mut(key) {
            *known = meter;
        } else if !meter.is_full(now) {
            if self.by_key.len() >= self.sweep_at.max(FEW) {
                self.by_key.retain(|_, meter| !meter.is_full(now));
                self.sweep_at = self.by_key.len() * 2;
            }
            self.by_key.insert(key.clone(), meter);
        }
    }
}

#[async_trait]
impl SharedCache for LocalCache {
    async fn take(&self, ask: &Ask) -> Result<Verdict, CacheError> {
        Ok(self.rule(ask))
    }

    /// Nothing: the stores of this node are as near.
    async fn ended(&self, _id: MessageId) -> Result<Option<Record>, CacheError> {
        Ok(None)
    }

    async fn keep_ended(&self, _record: &Record, _time: Duration) -> Result<(), CacheError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use hub_core::limit::{Fate, Rate};
    use hub_core::time::Timestamp;

    use super::*;

    /// Seconds that are set.
    struct Seconds(Instant, AtomicU64);

    impl Clock for Seconds {
        fn now(&self) -> Timestamp {
            Timestamp::EPOCH
        }

        fn wall(&self) -> Timestamp {
            Timestamp::EPOCH
        }

        fn instant(&self) -> Instant {
            self.0 + Duration::from_secs(self.1.load(Ordering::SeqCst))
        }

        fn since_boot(&self) -> Duration {
            Duration::ZERO
        }
    }

    #[expect(clippy::disallowed_methods, reason = "some instant to count from")]
    fn clock() -> Arc<Seconds> {
        Arc::new(Seconds(Instant::now(), AtomicU64::new(0)))
    }

    fn ask(caller: &str, permits: u32) -> Ask {
        let rate = Rate::per_second(9, 9).unwrap();
        Ask { caller: Some(Demand { key: Key::Caller(caller.into()), rate, permits }), ..Ask::default() }
    }

    fn taken(cache: &LocalCache, ask: &Ask) -> bool {
        cache.rule(ask).caller.unwrap().fate == Fate::Taken
    }

    #[test]
    fn a_limit_is_divided_among_the_live_nodes() {
        let (clock, live) = (clock(), Arc::new(AtomicUsize::new(3)));
        let seen = Arc::clone(&live);
        let cache = LocalCache::new(clock.clone(), Arc::new(move || seen.load(Ordering::SeqCst)));
        assert!(taken(&cache, &ask("a", 3)));
        assert!(!taken(&cache, &ask("a", 1)), "a third of nine");
        clock.1.store(1, Ordering::SeqCst);
        assert!(taken(&cache, &ask("a", 3)), "three a second");
        live.store(1, Ordering::SeqCst);
        clock.1.store(2, Ordering::SeqCst);
        assert!(taken(&cache, &ask("a", 9)), "alone: all of them");
    }

    #[test]
    fn who_has_all_permits_is_forgotten() {
        let clock = clock();
        let cache = LocalCache::new(clock.clone(), Arc::new(|| 1));
        for caller in 0..5_000 {
            clock.1.store(caller, Ordering::SeqCst);
            assert!(taken(&cache, &ask(&format!("caller-{caller}"), 1)));
        }
        assert!(cache.remembered() <= FEW, "{}", cache.remembered());
        assert!(taken(&cache, &ask("caller-4999", 8)));
        assert!(!taken(&cache, &ask("caller-4999", 1)), "who used some is not");
    }
}
