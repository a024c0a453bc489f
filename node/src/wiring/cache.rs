//! What the nodes share besides their stores: Redis if there is one, and what each does by itself without it.

use std::sync::{Arc, Mutex, PoisonError};

use hub_api::Rates;
use hub_core::error::code;
use hub_core::limit::Rate;
use hub_core::port::{Check, CheckStatus, SharedCache};
use hub_raft::Peers;
use hub_storage::memory::LocalCache;
use hub_storage::redis::{self, Counts, Endpoint, Handle, Options, Standing};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGauge, Opts};

use super::base::{Base, metrics};
use crate::coded::CodedError;
use crate::config::{Config, Limits};
use crate::control_port::StoreChecks;
use crate::identity::Identity;
use crate::lifecycle::{OnCancel, OnError, Stage, TaskKind};

const KIND: TaskKind =
    TaskKind { name: "redis", stage: Stage::Base, on_error: OnError::StopNode, on_cancel: OnCancel::Drop };

/// The shared cache of a node.
pub struct Cache {
    /// What requests ask.
    pub port: Arc<dyn SharedCache>,
    redis: Option<Handle>,
}

impl Cache {
    /// `others`, and how the cache fares if it is Redis: at worst with less than usual.
    #[must_use]
    pub fn checks(&self, others: StoreChecks) -> StoreChecks {
        match self.redis.clone() {
            Some(redis) => Arc::new(move || {
                let mut checks = others();
                checks.push(check(&redis.standing()));
                checks
            }),
            None => others,
        }
    }
}

/// The cache as configured. A Redis that does not answer is no reason not to start.
///
/// # Errors
/// A setting that cannot be used, or metrics that cannot be registered.
pub fn start(base: &Base, identity: &Identity, peers: &Peers) -> Result<Cache, CodedError> {
    let live = peers.clone();
    let local = LocalCache::new(base.time(), Arc::new(move || live.live().len() + 1));
    let Some(mut options) = options(&base.config, identity.cluster.unwrap_or_default())? else {
        return Ok(Cache { port: Arc::new(local), redis: None });
    };
    options.generation = identity.generation;
    let ports = redis::Ports { clock: base.time(), ids: Arc::clone(&base.ids), local };
    let (service, handle) = options.build(ports).map_err(|fault| refused(&fault))?;
    let collector = Metrics::new(handle.clone()).map_err(metrics)?;
    base.registry.register(Box::new(collector)).map_err(metrics)?;
    base.tasks.once(KIND, |tokens| async move {
        service.run(tokens.soft).await;
        Ok(())
    });
    Ok(Cache { port: Arc::new(handle.clone()), redis: Some(handle) })
}

/// How Redis is reached, as configured; `None` if there is none. Each cluster has keys of its own; the braces keep them
/// together where keys are spread over several servers.
///
/// # Errors
/// The URL or the file of authorities cannot be used.
pub fn options(config: &Config, cluster: u128) -> Result<Option<Options>, CodedError> {
    let settings = &config.redis;
    let Some(url) = &settings.url else { return Ok(None) };
    let endpoint = Endpoint::parse(url.expose())
        .map_err(|error| CodedError::new(code::CONFIG, format!("redis.url: {error}")))?;
    let mut options = Options::new(endpoint, format!("{}:{{{cluster:032x}}}", settings.prefix));
    options.timeout = settings.timeout;
    if let Some(path) = &settings.ca_file {
        let pem = std::fs::read(path).map_err(|error| {
            CodedError::new(code::CONFIG, format!("redis.ca_file: {} cannot be read", path.display()))
                .because(error)
        })?;
        options.authorities = Some(pem);
    }
    Ok(Some(options))
}

fn refused(fault: &redis::Fault) -> CodedError {
    CodedError::new(code::CONFIG, format!("redis.ca_file: {fault}"))
}

/// The rates as configured.
#[must_use]
pub fn rates(limits: &Limits) -> Rates {
    Rates {
        caller: Rate::per_second(limits.caller_per_second, limits.caller_burst),
        target: Rate::per_second(limits.target_per_second, limits.target_burst),
    }
}

fn check(standing: &Standing) -> Check {
    let (status, detail) = match standing {
        Standing::Starting => (CheckStatus::Degraded, "redis has not been asked yet".to_owned()),
        Standing::Shared => (CheckStatus::Ok, "redis answers".to_owned()),
        Standing::Local(reason) => {
            let detail =
                format!("each node limits rates by itself, to its share: redis is not used, for {reason}");
            (CheckStatus::Degraded, detail)
        }
    };
    Check { name: "cache", status, detail }
}

/// What the cache counted, read when metrics are asked for.
struct Metrics {
    redis: Handle,
    up: IntGauge,
    decisions: IntCounterVec,
    falls: IntCounterVec,
    reads: IntCounterVec,
    /// One reader at a time: the counters are brought up to what was counted.
    reading: Mutex<()>,
}

impl Metrics {
    fn new(redis: Handle) -> Result<Self, prometheus::Error> {
        let counter =
            |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        Ok(Self {
            redis,
            up: IntGauge::new("hub_cache_up", "1 while Redis is the shared cache.")?,
            decisions: counter(
                "hub_cache_decisions_total",
                "Decisions about rates, by who made them.",
                &["by"],
            )?,
            falls: counter("hub_cache_failures_total", "How often Redis was given up for a while.", &[])?,
            reads: counter("hub_cache_reads_total", "Messages looked up in the cache.", &["result"])?,
            reading: Mutex::default(),
        })
    }
}

impl Collector for Metrics {
    fn desc(&self) -> Vec<&Desc> {
        let counters = [&self.decisions, &self.falls, &self.reads].into_iter().flat_map(Collector::desc);
        self.up.desc().into_iter().chain(counters).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let Counts { shared, local, falls, hits, misses } = self.redis.counts();
        self.up.set(i64::from(self.redis.standing() == Standing::Shared));
        for (counter, label, count) in [
            (&self.decisions, &["redis"][..], shared),
            (&self.decisions, &["node"], local),
            (&self.falls, &[], falls),
            (&self.reads, &["hit"], hits),
            (&self.reads, &["miss"], misses),
        ] {
            let counter = counter.with_label_values(label);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        let counters = [&self.decisions, &self.falls, &self.reads].into_iter().flat_map(Collector::collect);
        self.up.collect().into_iter().chain(counters).collect()
    }
}
