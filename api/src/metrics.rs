//! Metrics of the interface: typed handles, registered once, with bounded labels.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{Method, StatusCode};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// Upper bounds in seconds: from an answer out of memory to one that waited for its deadline.
const BUCKETS: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// The handles.
pub struct Metrics {
    /// Requests at work.
    pub in_flight: IntGauge,
    /// Open connections.
    pub connections: IntGauge,
    /// Bytes of request bodies that were read.
    pub body_bytes: IntCounter,
    /// Messages taken.
    pub accepted: IntCounter,
    /// Messages that had been taken before, under the same key.
    pub replayed: IntCounter,
    /// Messages refused.
    pub refused: IntCounter,
    requests: IntCounterVec,
    seconds: HistogramVec,
    rejected: IntCounterVec,
    limited: IntCounterVec,
    series: RwLock<HashMap<String, HashMap<Answer, Arc<Series>>>>,
}

/// Method and status.
type Answer = (&'static str, u16);

/// The two series of one route, method and status.
struct Series {
    count: IntCounter,
    seconds: Histogram,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// When metrics of these names are registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let messages = IntCounterVec::new(
            Opts::new("hub_messages_sent_total", "Messages sent to this node, by what became of them."),
            &["result"],
        )?;
        let metrics = Self {
            in_flight: IntGauge::new("hub_http_requests_in_flight", "Requests at work.")?,
            connections: IntGauge::new("hub_http_connections", "Open client connections.")?,
            body_bytes: IntCounter::new(
                "hub_http_request_body_bytes_total",
                "Bytes of request bodies read.",
            )?,
            accepted: messages.with_label_values(&["accepted"]),
            replayed: messages.with_label_values(&["replayed"]),
            refused: messages.with_label_values(&["refused"]),
            requests: IntCounterVec::new(
                Opts::new("hub_http_requests_total", "Requests answered, by route, method and status."),
                &["route", "method", "status"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new("hub_http_request_seconds", "Time from a request's header to its answer.")
                    .buckets(BUCKETS.to_vec()),
                &["route", "method"],
            )?,
            rejected: IntCounterVec::new(
                Opts::new("hub_http_rejected_total", "Requests and connections turned away, by reason."),
                &["reason"],
            )?,
            limited: IntCounterVec::new(
                Opts::new(
                    "hub_messages_rate_limited_total",
                    "Messages refused by a rate limit: the caller's or the target's.",
                ),
                &["limit"],
            )?,
            series: RwLock::default(),
        };
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.body_bytes.clone()))?;
        registry.register(Box::new(messages))?;
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.rejected.clone()))?;
        registry.register(Box::new(metrics.limited.clone()))?;
        Ok(metrics)
    }

    /// One request was answered. `route` is a route's template, never a path.
    pub fn answered(&self, route: &str, method: &Method, status: StatusCode, seconds: f64) {
        let answer = (method_label(method), status.as_u16());
        let known = {
            let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
            series.get(route).and_then(|answers| answers.get(&answer)).cloned()
        };
        let series = known.unwrap_or_else(|| self.open(route, answer));
        series.count.inc();
        series.seconds.observe(seconds);
    }

    /// Someone was turned away.
    pub fn rejected(&self, reason: &'static str) {
        self.rejected.with_label_values(&[reason]).inc();
    }

    /// Messages were refused by this limit.
    pub fn limited(&self, limit: &'static str, messages: u32) {
        self.limited.with_label_values(&[limit]).inc_by(messages.into());
    }

    fn open(&self, route: &str, answer: Answer) -> Arc<Series> {
        let (method, status) = answer;
        let series = Arc::new(Series {
            count: self.requests.with_label_values(&[route, method, &status.to_string()]),
            seconds: self.seconds.with_label_values(&[route, method]),
        });
        let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(route.to_owned()).or_default().insert(answer, Arc::clone(&series));
        series
    }
}

/// A method as a label: what is not usual is `OTHER`, so that callers cannot make labels.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "OTHER",
    }
}
