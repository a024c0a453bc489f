//! What a group tells Prometheus.

use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::alias::WatchReceiverOf;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry};

use crate::log_store::LogHandle;
use crate::type_config::{C, LogId, Metrics};

/// The collectors of one group, all with its name as label `group`.
#[derive(Debug)]
pub(crate) struct GroupMetrics {
    pub(crate) leader_changes: IntCounter,
    pub(crate) waiting: IntGauge,
    pub(crate) entry_commands: Histogram,
    pub(crate) apply_batch: Histogram,
    pub(crate) proposal_seconds: Histogram,
    pub(crate) skipped: IntCounter,
    pub(crate) unknown_outcomes: IntCounter,
    pub(crate) snapshots_installed: IntCounter,
    pub(crate) snapshots_sent: IntCounter,
}

struct Maker<'a> {
    registry: &'a Registry,
    group: &'a str,
}

impl Maker<'_> {
    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(format!("hub_raft_{name}"), help).const_label("group", self.group)
    }

    fn add<T: Collector + Clone + 'static>(&self, collector: T) -> prometheus::Result<T> {
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.add(IntGauge::with_opts(self.opts(name, help))?)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.add(IntCounter::with_opts(self.opts(name, help))?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> prometheus::Result<Histogram> {
        let opts = HistogramOpts::from(self.opts(name, help)).buckets(buckets);
        self.add(Histogram::with_opts(opts)?)
    }
}

impl GroupMetrics {
    /// Makes and registers them.
    pub(crate) fn register(registry: &Registry, group: &str) -> prometheus::Result<Self> {
        let make = Maker { registry, group };
        let sizes = || vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0];
        let seconds =
            vec![0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
        Ok(Self {
            leader_changes: make.counter("leader_changes_total", "Times another leader was seen")?,
            waiting: make.gauge("proposals_waiting", "Proposals in this node without an answer yet")?,
            entry_commands: make.histogram("entry_commands", "Commands that share one log entry", sizes())?,
            apply_batch: make.histogram("apply_batch_entries", "Entries applied in one step", sizes())?,
            proposal_seconds: make.histogram("proposal_seconds", "From asking to the answer", seconds)?,
            skipped: make
                .counter("skipped_entries_total", "Unknown commands that were skipped as ignorable")?,
            unknown_outcomes: make
                .counter("unknown_outcomes_total", "Proposals whose outcome stayed unknown")?,
            snapshots_installed: make
                .counter("snapshots_installed_total", "Snapshots received and installed")?,
            snapshots_sent: make.counter("snapshots_sent_total", "Snapshots sent to followers")?,
        })
    }
}

/// What is read from openraft and from the log when somebody asks.
pub(crate) struct LiveMetrics {
    raft: WatchReceiverOf<C, Metrics>,
    log: LogHandle,
    term: IntGauge,
    is_leader: IntGauge,
    last_log_index: IntGauge,
    committed_index: IntGauge,
    applied_index: IntGauge,
    snapshot_index: IntGauge,
    purged_index: IntGauge,
    syncs: IntGauge,
    sync_micros: IntGauge,
    sync_longest_micros: IntGauge,
}

impl LiveMetrics {
    pub(crate) fn new(
        raft: WatchReceiverOf<C, Metrics>,
        log: LogHandle,
        group: &str,
    ) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| {
            IntGauge::with_opts(Opts::new(format!("hub_raft_{name}"), help).const_label("group", group))
        };
        Ok(Self {
            raft,
            log,
            term: gauge("term", "Current term")?,
            is_leader: gauge("is_leader", "1 when this node leads the group")?,
            last_log_index: gauge("last_log_index", "Index of the last entry in the log")?,
            committed_index: gauge("committed_index", "Index of the last entry known to be committed")?,
            applied_index: gauge("applied_index", "Index of the last entry that was applied")?,
            snapshot_index: gauge("snapshot_index", "Index of the last entry in a durable checkpoint")?,
            purged_index: gauge("purged_index", "Index of the last entry that was deleted from the log")?,
            syncs: gauge("log_syncs", "Syncs of the log since the start")?,
            sync_micros: gauge("log_sync_microseconds", "Time spent in syncs of the log since the start")?,
            sync_longest_micros: gauge(
                "log_sync_longest_microseconds",
                "Longest sync of the log since last asked",
            )?,
        })
    }

    fn gauges(&self) -> [&IntGauge; 10] {
        [
            &self.term,
            &self.is_leader,
            &self.last_log_index,
            &self.committed_index,
            &self.applied_index,
            &self.snapshot_index,
            &self.purged_index,
            &self.syncs,
            &self.sync_micros,
            &self.sync_longest_micros,
        ]
    }

    fn read(&self) {
        let set = |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        let index = |id: &Option<LogId>| id.as_ref().map_or(0, LogId::index);
        {
            let metrics = self.raft.borrow_watched();
            set(&self.term, metrics.current_term);
            set(&self.is_leader, u64::from(metrics.state.is_leader()));
            set(&self.last_log_index, metrics.last_log_index.unwrap_or(0));
            set(&self.committed_index, index(&metrics.local_committed));
            set(&self.applied_index, index(&metrics.last_applied));
            set(&self.snapshot_index, index(&metrics.snapshot));
            set(&self.purged_index, index(&metrics.purged));
        }
        if let Some((syncs, took, longest)) = self.log.with_stats(crate::log_store::SyncStats::take) {
            let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            set(&self.syncs, syncs);
            set(&self.sync_micros, micros(took));
            set(&self.sync_longest_micros, micros(longest));
        }
    }
}

impl Collector for LiveMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.gauges().into_iter().flat_map(Collector::collect).collect()
    }
}
