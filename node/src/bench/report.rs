//! What a measurement says.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{FileSystem, Quantiles};

/// What one node used during the measurement.
#[derive(Clone, Debug, Serialize)]
pub struct NodeUsage {
    /// The node, counted from 1.
    pub node: usize,
    /// It led these groups at the end.
    pub leads: Vec<String>,
    /// Seconds of processor time.
    pub cpu_s: f64,
    /// Bytes of memory at the end.
    pub rss_bytes: u64,
    /// Bytes it caused to be written to disk.
    pub written_bytes: u64,
}

/// What a measurement says.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was measured.
    pub subject: String,
    /// How many nodes.
    pub nodes: usize,
    /// How many clients at a time.
    pub clients: usize,
    /// The rate that was asked for, a second; as fast as possible if absent.
    pub rate: Option<f64>,
    /// Deliveries were on; absent if no messages were sent.
    pub deliver: Option<bool>,
    /// How long it was measured, in seconds.
    pub seconds: f64,
    /// Messages accepted, or other operations done, a second.
    pub accepted_per_s: f64,
    /// Messages that arrived, a second, over the same time.
    pub delivered_per_s: Option<f64>,
    /// From request to answer.
    pub accept: Quantiles,
    /// From answer to arrival.
    pub delivery: Option<Quantiles>,
    /// How long after the end the last message arrived, in seconds.
    pub drain_s: Option<f64>,
    /// Accepted, with the warm-up.
    pub accepted: u64,
    /// Arrived at least once, or (deliveries off) found in the store.
    pub delivered: u64,
    /// Accepted and neither arrived nor found.
    pub lost: u64,
    /// Arrivals beyond the first.
    pub duplicated: u64,
    /// Arrived though the answer never came.
    pub unanswered: u64,
    /// The first ids that did not arrive, and what the store says about them.
    pub missing: Vec<String>,
    /// Requests without a 2xx, by reason.
    pub failures: BTreeMap<String, u64>,
    /// Bytes written to disk by all nodes together, a message (or operation) accepted.
    pub written_bytes_per_message: Option<f64>,
    /// Each node of a cluster of our own.
    pub node_usage: Vec<NodeUsage>,
    /// Seconds of processor time that the generator and the receiver took.
    pub generator_cpu_s: f64,
    /// Where the nodes' data lay; absent for a cluster that is not our own.
    pub file_system: Option<FileSystem>,
    /// Processors of this machine.
    pub processors: usize,
}

impl Report {
    /// The lines of the table: a name and a value each.
    #[must_use]
    pub fn lines(&self) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        let mut line = |name: &str, value: String| lines.push((name.to_owned(), value));
        line("subject", self.subject.clone());
        let rate = self.rate.map_or_else(|| "closed loop".to_owned(), |rate| format!("{rate:.0}/s asked"));
        line(
            "load",
            format!("{} nodes, {} clients, {rate}, {:.1} s", self.nodes, self.clients, self.seconds),
        );
        if let Some(deliver) = self.deliver {
            line("deliveries", if deliver { "on" } else { "off" }.to_owned());
        }
        line(
            if self.deliver.is_some() { "accepted/s" } else { "done/s" },
            format!("{:.0}", self.accepted_per_s),
        );
        if let Some(rate) = self.delivered_per_s {
            line("delivered/s", format!("{rate:.0}"));
        }
        line("accept p50/p95/p99/max", quantiles(&self.accept));
        if let Some(delivery) = &self.delivery {
            line("accept to delivered p50/p95/p99/max", quantiles(delivery));
        }
        if let Some(drain) = self.drain_s {
            line("last arrival after the end", format!("{drain:.2} s"));
        }
        line("accepted", self.accepted.to_string());
        if let Some(deliver) = self.deliver {
            line(if deliver { "delivered" } else { "found in the store" }, self.delivered.to_string());
            line("lost", self.lost.to_string());
            line("duplicated", self.duplicated.to_string());
        }
        for missing in &self.missing {
            line("did not arrive", missing.clone());
        }
        if self.unanswered > 0 {
            line("arrived without an answer", self.unanswered.to_string());
        }
        for (reason, count) in &self.failures {
            line("failed", format!("{count} x {reason}"));
        }
        if let Some(bytes) = self.written_bytes_per_message {
            line("bytes written a message", format!("{bytes:.0}"));
        }
        for usage in &self.node_usage {
            line(&format!("node {}", usage.node), usage.to_string());
        }
        line("generator and receiver", format!("{:.1} s CPU", self.generator_cpu_s));
        if let Some(fs) = &self.file_system {
            line("file system", format!("{} ({} at {})", fs.kind, fs.device, fs.mounted_at));
        }
        line("processors", self.processors.to_string());
        lines
    }
}

impl std::fmt::Display for NodeUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (rss, written) = (mib(self.rss_bytes), mib(self.written_bytes));
        write!(f, "{:.1} s CPU, {rss:.0} MiB memory, {written:.1} MiB written", self.cpu_s)?;
        if !self.leads.is_empty() {
            write!(f, ", leads {}", self.leads.join(" and "))?;
        }
        Ok(())
    }
}

/// Milliseconds, as a table shows them.
pub(super) fn quantiles(found: &Quantiles) -> String {
    format!("{:.2} / {:.2} / {:.2} / {:.2} ms", found.p50_ms, found.p95_ms, found.p99_ms, found.max_ms)
}
