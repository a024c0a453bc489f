//! What delivery counts.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hub_core::delivery::AttemptOutcome;
use hub_core::id::ServiceName;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The metrics of delivery.
#[derive(Debug)]
pub(super) struct Metrics {
    deliveries: IntCounterVec,
    seconds: Histogram,
    /// Attempts under way.
    pub(super) in_flight: IntGauge,
    /// Claims by where they were made: with the message (`accepted`) or later (`claimed`).
    claims: IntCounterVec,
    /// Claims given back unused.
    pub(super) released: IntCounter,
    /// Ends of attempts that came after their claim was over.
    pub(super) late_settles: IntCounter,
    /// Ends of attempts that could not be written while their claim held.
    pub(super) lost_settles: IntCounter,
    /// Ends written in one step.
    pub(super) settle_batch: Histogram,
    /// Slots held.
    pub(super) slots_used: IntGauge,
    labelled: Mutex<HashSet<ServiceName>>,
    labels: usize,
}

impl Metrics {
    pub(super) fn register(registry: &Registry, labels: usize) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            deliveries: IntCounterVec::new(
                Opts::new("hub_deliveries_total", "Attempts by target and outcome"),
                &["target", "outcome"],
            )?,
            seconds: Histogram::with_opts(
                HistogramOpts::new("hub_delivery_seconds", "Time from the start of an attempt to its end")
                    .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]),
            )?,
            in_flight: IntGauge::new("hub_deliveries_in_flight", "Attempts under way")?,
            claims: IntCounterVec::new(
                Opts::new("hub_delivery_claims_total", "Claims by where they were made"),
                &["made"],
            )?,
            released: IntCounter::new("hub_delivery_claims_released_total", "Claims given back unused")?,
            late_settles: IntCounter::new(
                "hub_delivery_late_settles_total",
                "Ends of attempts that came after their claim was over and changed nothing",
            )?,
            lost_settles: IntCounter::new(
                "hub_delivery_lost_settles_total",
                "Ends of attempts that could not be written while their claim held",
            )?,
            settle_batch: Histogram::with_opts(
                HistogramOpts::new("hub_delivery_settle_batch_size", "Ends of attempts written in one step")
                    .buckets(vec![1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0]),
            )?,
            slots_used: IntGauge::new("hub_delivery_slots_used", "Delivery slots held")?,
            labelled: Mutex::default(),
            labels,
        };
        registry.register(Box::new(metrics.deliveries.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.claims.clone()))?;
        registry.register(Box::new(metrics.released.clone()))?;
        registry.register(Box::new(metrics.late_settles.clone()))?;
        registry.register(Box::new(metrics.lost_settles.clone()))?;
        registry.register(Box::new(metrics.settle_batch.clone()))?;
        registry.register(Box::new(metrics.slots_used.clone()))?;
        Ok(metrics)
    }

    /// One attempt ended.
    pub(super) fn attempted(&self, target: &ServiceName, outcome: AttemptOutcome, took: Duration) {
        let label = if self.is_labelled(target) { target.as_str() } else { "other" };
        self.deliveries.with_label_values(&[label, outcome.as_str()]).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Messages came claimed from the store.
    pub(super) fn claimed_at_accept(&self, count: usize) {
        self.claims.with_label_values(&["accepted"]).inc_by(count as u64);
    }

    /// Messages were claimed by the dispatcher.
    pub(super) fn claimed(&self, count: usize) {
        self.claims.with_label_values(&["claimed"]).inc_by(count as u64);
    }

    fn is_labelled(&self, target: &ServiceName) -> bool {
        let mut labelled = self.labelled.lock().unwrap_or_else(PoisonError::into_inner);
        if labelled.contains(target) {
            return true;
        }
        let room = labelled.len() < self.labels;
        if room {
            labelled.insert(target.clone());
        }
        room
    }
}
