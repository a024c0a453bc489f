//! Settings of the HTTP interface.

use std::time::Duration;

use hub_core::limit::Rate;
use hub_core::message::Limits;

/// How fast messages are taken; nothing for no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// From each caller, whatever it sends to whom.
    pub caller: Option<Rate>,
    /// For each target, whoever sends.
    pub target: Option<Rate>,
}

/// What the interface takes, how long it waits, and what it shows without a token.
#[derive(Clone, Debug)]
pub struct Options {
    /// Limits on one message.
    pub limits: Limits,
    /// Limits on all messages of a caller and of a target, over the whole cluster; none by default.
    pub rates: Rates,
    /// Age at which a message that is still open becomes a dead letter, unless its target says otherwise; default 7 days.
    pub max_age: Duration,
    /// How long the store keeps messages that have come to their end; default 7 days.
    pub retention: Duration,
    /// Time for one request's work, once its body has arrived; default 10 s.
    pub deadline: Duration,
    /// Time for operations that wait for something to happen (drain, transfer, test message); default 60 s.
    pub long_deadline: Duration,
    /// Time for a request's body to arrive; default 10 s.
    pub body_timeout: Duration,
    /// Most bytes in a batch; default 16 MiB.
    pub max_batch_bytes: usize,
    /// Most bytes in an atomic batch; default 4 MiB less room for the entry's own fields.
    pub max_atomic_bytes: usize,
    /// Most messages in a batch; default 1,000.
    pub max_batch_messages: usize,
    /// Most requests at a time; more are answered 503. Default 4,096.
    pub max_in_flight: usize,
    /// Most bytes of request bodies in memory at a time; more are answered 503. Default 256 MiB.
    pub max_body_memory: usize,
    /// `/metrics` needs no token; default true.
    pub open_metrics: bool,
    /// `/docs` and `/openapi.json` need no token; default true.
    pub open_docs: bool,
    /// A log line at `info` also for requests that succeed; default false: those are logged at `debug`.
    pub log_requests: bool,
    /// This software's version, as `/health` and the OpenAPI document show it.
    pub version: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            rates: Rates::default(),
            retention: Duration::from_secs(7 * 24 * 3600),
            max_age: Duration::from_secs(7 * 24 * 3600),
            deadline: Duration::from_secs(10),
            long_deadline: Duration::from_secs(60),
            body_timeout: Duration::from_secs(10),
            max_batch_bytes: 16 << 20,
            max_atomic_bytes: (4 << 20) - (64 << 10),
            max_batch_messages: 1_000,
            max_in_flight: 4_096,
            max_body_memory: 256 << 20,
            open_metrics: true,
            open_docs: true,
            log_requests: false,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}
