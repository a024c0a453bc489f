//! Metrics of the process: memory, CPU, descriptors, threads, network, and which build it is.

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts, Registry};

/// Adds them to `registry`.
///
/// # Errors
/// A name is taken.
pub fn register(registry: &Registry) -> Result<(), prometheus::Error> {
    registry.register(Box::new(ProcessCollector::for_self()))?;
    registry.register(Box::new(NetworkCollector::new()?))?;
    let build = IntGaugeVec::new(
        Opts::new("hub_build_info", "Which build runs; always 1."),
        &["version", "profile"],
    )?;
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    build.with_label_values(&[env!("CARGO_PKG_VERSION"), profile]).set(1);
    registry.register(Box::new(build))
}

/// Bytes over the network interfaces that this process sees (its network namespace), read when asked.
struct NetworkCollector {
    received: IntGaugeVec,
    sent: IntGaugeVec,
}

impl NetworkCollector {
    fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["interface"]);
        Ok(Self {
            received: gauge(
                "hub_network_received_bytes",
                "Bytes received on each interface since it came up.",
            )?,
            sent: gauge("hub_network_sent_bytes", "Bytes sent on each interface since it came up.")?,
        })
    }
}

impl Collector for NetworkCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.received.desc().into_iter().chain(self.sent.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let table = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
        for (interface, received, sent) in table.lines().filter_map(interface) {
            self.received.with_label_values(&[interface]).set(received);
            self.sent.with_label_values(&[interface]).set(sent);
        }
        self.received.collect().into_iter().chain(self.sent.collect()).collect()
    }
}

/// Name, bytes received and bytes sent out of one line of `/proc/net/dev`.
fn interface(line: &str) -> Option<(&str, i64, i64)> {
    let (name, numbers) = line.split_once(':')?;
    let mut numbers = numbers.split_whitespace();
    let received = numbers.next()?.parse().ok()?;
    let sent = numbers.nth(7)?.parse().ok()?;
    Some((name.trim(), received, sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_interface() {
        let line = "  eth0: 1500 10 0 0 0 0 0 0 2500 20 0 0 0 0 0 0";
        assert_eq!(interface(line), Some(("eth0", 1500, 2500)));
        assert_eq!(interface(" face |bytes packets"), None);
    }

    #[test]
    fn shows_memory_cpu_and_network() {
        let registry = Registry::new();
        register(&registry).unwrap();
        let names: Vec<_> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
        for wanted in [
            "process_resident_memory_bytes",
            "process_cpu_seconds_total",
            "hub_build_info",
            "hub_network_sent_bytes",
        ] {
            assert!(names.iter().any(|name| name == wanted), "{wanted} is missing in {names:?}");
        }
    }
}
