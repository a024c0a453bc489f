//! Kills the leader again and again, and measures how long nothing can be written.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hyper::header::HeaderValue;
use hyper::{Method, Uri};
use serde::Serialize;

use super::histogram::{Latencies, Quantiles};
use super::report::quantiles;
use super::stage::SENDER;
use super::subject::{message_id, reason};
use super::{Connection, Error, FileSystem, Stage};
use crate::client::source;

/// Between two probes.
const STEP: Duration = Duration::from_millis(5);
/// A gap longer than this ends the measurement.
const LONGEST: Duration = Duration::from_secs(60);
/// Until a probe counts as unanswered: short, so that one that a dying leader swallowed is soon repeated.
const ANSWER: Duration = Duration::from_secs(5);

/// How failover is measured.
#[derive(Clone, Copy, Debug)]
pub struct FailoverOptions {
    /// Kills.
    pub kills: usize,
    /// The group whose leader is killed: `control`, else `messages`.
    pub control: bool,
    /// Between the return of a killed node and the next kill.
    pub pause: Duration,
    /// For the last deliveries.
    pub quiet: Duration,
}

/// What failover looked like.
#[derive(Clone, Debug, Serialize)]
pub struct FailoverReport {
    /// `failover`.
    pub subject: &'static str,
    /// The group whose leader was killed.
    pub group: &'static str,
    /// How many nodes.
    pub nodes: usize,
    /// How often the leader was killed.
    pub kills: usize,
    /// Leader killed to next committed write, each.
    pub gaps_ms: Vec<f64>,
    /// The same, summed up.
    pub gap: Quantiles,
    /// Writes that were answered with 2xx.
    pub accepted: u64,
    /// Messages accepted that never arrived.
    pub lost: u64,
    /// Arrivals beyond the first.
    pub duplicated: u64,
    /// Writes without a 2xx, by reason.
    pub failures: BTreeMap<String, u64>,
    /// Where the nodes' data lay.
    pub file_system: Option<FileSystem>,
}

impl FailoverReport {
    /// The lines of the table.
    #[must_use]
    pub fn lines(&self) -> Vec<(String, String)> {
        let mut lines = vec![
            ("subject".to_owned(), format!("failover of {}", self.group)),
            ("nodes".to_owned(), self.nodes.to_string()),
            ("leaders killed".to_owned(), self.kills.to_string()),
            ("gap p50/p95/p99/max".to_owned(), quantiles(&self.gap)),
            ("writes accepted".to_owned(), self.accepted.to_string()),
        ];
        if self.group == "messages" {
            lines.push(("lost".to_owned(), self.lost.to_string()));
            lines.push(("duplicated".to_owned(), self.duplicated.to_string()));
        }
        for (reason, count) in &self.failures {
            lines.push(("failed".to_owned(), format!("{count} x {reason}")));
        }
        if let Some(fs) = &self.file_system {
            lines.push((
                "file system".to_owned(),
                format!("{} ({} at {})", fs.kind, fs.device, fs.mounted_at),
            ));
        }
        lines
    }
}

/// Measures; `say` hears what is going on.
///
/// # Errors
/// When a leader is missing too long, or a node does not come back.
pub async fn run(
    stage: &mut Stage,
    options: &FailoverOptions,
    say: &dyn Fn(&str),
) -> Result<FailoverReport, Error> {
    let group = if options.control { "control" } else { "messages" };
    let nodes = stage.nodes();
    let mut probe = Probe::new(stage, options.control)?;
    let mut latencies = Latencies::new()?;
    let mut gaps_ms = Vec::with_capacity(options.kills);
    for kill in 1..=options.kills {
        let leader = stage.view().await?.leader(group);
        let leader = leader.and_then(|id| stage.own().ok()?.position(id));
        let leader = leader.ok_or_else(|| Error::Late(format!("nobody leads {group}")))?;
        probe.only_others(nodes, leader);
        probe.warm(stage).await?;
        let killed = source::instant();
        stage.own()?.kill(leader).await?;
        let gap = probe.first_after(stage, killed).await?;
        latencies.record(gap);
        gaps_ms.push((gap.as_secs_f64() * 1e6).round() / 1e3);
        say(&format!(
            "kill {kill} of {}: node {} led {group}, gap {} ms",
            options.kills,
            leader + 1,
            gap.as_millis()
        ));
        stage.own()?.restart(leader)?;
        stage.own()?.wait_ready(LONGEST).await?;
        tokio::time::sleep(options.pause).await;
    }
    if !options.control {
        say("waiting for the last deliveries");
        stage.ledger.settled(options.quiet).await;
    }
    let totals = stage.ledger.lock().totals();
    Ok(FailoverReport {
        subject: "failover",
        group,
        nodes: stage.nodes(),
        kills: options.kills,
        gaps_ms,
        gap: latencies.quantiles(),
        accepted: probe.accepted,
        lost: totals.missing(),
        duplicated: totals.duplicates,
        failures: probe.failures,
        file_system: stage.file_system.clone(),
    })
}

/// Small writes, one every few milliseconds, on the nodes that live.
struct Probe {
    path: Uri,
    control: bool,
    receiver: String,
    target: String,
    fired: u64,
    next: usize,
    /// Positions of the nodes that are asked.
    nodes: Vec<usize>,
    idle: BTreeMap<usize, VecDeque<Connection>>,
    accepted: u64,
    failures: BTreeMap<String, u64>,
}

/// What became of one probe.
struct Landed {
    position: usize,
    connection: Connection,
    result: Result<Option<u128>, String>,
    at: Instant,
}

impl Probe {
    fn new(stage: &Stage, control: bool) -> Result<Self, Error> {
        let path = if control { "/api/v1/services/register" } else { "/api/v1/messages" };
        Ok(Self {
            path: Uri::from_static(path),
            control,
            receiver: stage.receiver_url()?.as_str().trim_end_matches('/').to_owned(),
            target: stage.targets.first().cloned().unwrap_or_default(),
            fired: 0,
            next: 0,
            nodes: (0..stage.nodes()).collect(),
            idle: BTreeMap::new(),
            accepted: 0,
            failures: BTreeMap::new(),
        })
    }

    fn only_others(&mut self, all: usize, dying: usize) {
        self.nodes = (0..all).filter(|position| *position != dying).collect();
        self.idle.clear();
    }

    /// Connects to every node that stays, so that a gap holds no connecting.
    async fn warm(&mut self, stage: &Stage) -> Result<(), Error> {
        for _ in 0..self.nodes.len() * 4 {
            let landed = self.fire(stage)?.await;
            self.note(stage, landed);
        }
        Ok(())
    }

    /// The time from `killed` to the first answer to a write that began after the kill.
    async fn first_after(&mut self, stage: &Stage, killed: Instant) -> Result<Duration, Error> {
        let mut flying = FuturesUnordered::new();
        let mut gap: Option<Duration> = None;
        let mut tick = tokio::time::interval(STEP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(landed) = flying.next() => {
                    let landed: Landed = landed;
                    if landed.result.is_ok() && gap.is_none() {
                        gap = Some(landed.at.saturating_duration_since(killed));
                    }
                    self.note(stage, landed);
                }
                _ = tick.tick(), if gap.is_none() => flying.push(self.fire(stage)?),
            }
            match gap {
                // The last ones are heard too, so that the ledger knows their ids.
                Some(gap) if flying.is_empty() => return Ok(gap),
                None if killed.elapsed() > LONGEST => {
                    return Err(Error::Late(format!(
                        "nothing could be written for {LONGEST:?} after a kill"
                    )));
                }
                _ => {}
            }
        }
    }

    fn fire(&mut self, stage: &Stage) -> Result<impl Future<Output = Landed> + use<>, Error> {
        self.fired += 1;
        self.next = (self.next + 1) % self.nodes.len().max(1);
        let position = self.nodes.get(self.next).copied().unwrap_or(0);
        let idle = self.idle.entry(position).or_default().pop_front();
        let mut connection = match idle {
            Some(connection) => connection,
            None => stage.connection(position)?,
        };
        let body = self.body();
        let key = HeaderValue::from_str(&source::request_key().map_err(crate::client::Error::from)?).ok();
        let (path, control) = (self.path.clone(), self.control);
        Ok(async move {
            let reply = connection.request(Method::POST, &path, key.as_ref(), body, ANSWER).await;
            let result = match reply {
                Ok(reply) if reply.status.is_success() && control => Ok(None),
                Ok(reply) if reply.status.is_success() => {
                    message_id(&reply.body).map(Some).ok_or_else(|| "a 2xx without an id".to_owned())
                }
                Ok(reply) => Err(reason(&reply)),
                Err(words) => Err(words),
            };
            Landed { position, connection, result, at: source::instant() }
        })
    }

    fn note(&mut self, stage: &Stage, landed: Landed) {
        self.idle.entry(landed.position).or_default().push_back(landed.connection);
        match landed.result {
            Ok(id) => {
                self.accepted += 1;
                if let Some(id) = id {
                    stage.ledger.lock().accept(id, landed.at);
                }
            }
            Err(reason) => *self.failures.entry(reason).or_default() += 1,
        }
    }

    fn body(&self) -> Bytes {
        let text = if self.control {
            format!(
                r#"{{"name":"bench-c0","instances":[{{"id":"i","url":"{}"}}],"health_check":{{"kind":"none"}},"metadata":{{"n":"{}"}}}}"#,
                self.receiver, self.fired
            )
        } else {
            format!(
                r#"{{"sender_service":"{SENDER}","target_service":"{}","message_type":"bench","content":{{"n":{}}}}}"#,
                self.target, self.fired
            )
        };
        Bytes::from(text)
    }
}
