//! Whether a target that hangs slows the others down: the same load twice, with all targets well and with one that takes
//! messages and does not answer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use super::histogram::Quantiles;
use super::report::quantiles;
use super::subject::{Client, shots};
use super::{Error, FileSystem, Load, Receiver, SharedLedger, Stage, Subject, SubjectOptions};
use crate::client::source;

/// The target that hangs in the second half.
const HANGS: &str = "bench-hangs";

/// How isolation is measured.
#[derive(Clone, Copy, Debug)]
pub struct IsolationOptions {
    /// Clients at a time; each of them sends to one target.
    pub clients: usize,
    /// Requests a second, all clients together.
    pub rate: f64,
    /// So many rounds of each kind; the median of their quantiles counts.
    pub rounds: usize,
    /// How long a round is.
    pub round: Duration,
    /// About so many bytes of content a message.
    pub content_bytes: usize,
    /// Address of this machine under which the nodes reach the target that hangs.
    pub receiver: IpAddr,
    /// Nothing more is expected when nothing arrived for so long.
    pub quiet: Duration,
}

/// What a target that hangs did to the others.
#[derive(Clone, Debug, Serialize)]
pub struct IsolationReport {
    /// `isolation`.
    pub subject: &'static str,
    /// How many nodes.
    pub nodes: usize,
    /// How many targets, the one that hangs among them.
    pub targets: usize,
    /// Requests a second, all targets together.
    pub rate: f64,
    /// From answer to arrival at the others while all are well: the median round.
    pub all_well: Quantiles,
    /// The same while one hangs.
    pub one_hangs: Quantiles,
    /// By how much the others' 99th percentile moved.
    pub p99_moved_percent: f64,
    /// From request to answer while all are well, and while one hangs.
    pub accept: [Quantiles; 2],
    /// Deliveries to the target that hung, answered or not, while it hung.
    pub tried: u64,
    /// From its recovery to its last message.
    pub caught_up_s: Option<f64>,
    /// Accepted in all.
    pub accepted: u64,
    /// Accepted and never arrived.
    pub lost: u64,
    /// Arrivals beyond the first.
    pub duplicated: u64,
    /// Requests without a 2xx, by reason.
    pub failures: BTreeMap<String, u64>,
    /// Where the nodes' data lay.
    pub file_system: Option<FileSystem>,
}

impl IsolationReport {
    /// The lines of the table.
    #[must_use]
    pub fn lines(&self) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        let mut line = |name: &str, value: String| lines.push((name.to_owned(), value));
        line("subject", self.subject.to_owned());
        line("nodes", self.nodes.to_string());
        line("load", format!("{} messages/s to {} targets", self.rate, self.targets));
        line("to delivered, all well, p50/p95/p99/max", quantiles(&self.all_well));
        line("to delivered, one hangs, p50/p95/p99/max", quantiles(&self.one_hangs));
        line("p99 of the others moved by", format!("{:+.1} %", self.p99_moved_percent));
        let [well, hangs] = &self.accept;
        line("accept, all well, p50/p95/p99/max", quantiles(well));
        line("accept, one hangs, p50/p95/p99/max", quantiles(hangs));
        line("tried at the one that hung", self.tried.to_string());
        if let Some(seconds) = self.caught_up_s {
            line("it caught up after", format!("{seconds:.1} s"));
        }
        line("accepted", self.accepted.to_string());
        line("lost", self.lost.to_string());
        line("duplicated", self.duplicated.to_string());
        for (reason, count) in &self.failures {
            line("failed", format!("{count} x {reason}"));
        }
        lines
    }
}

/// Measures; `say` hears what is going on. All targets of the stage stay well; one more is registered that hangs.
///
/// # Errors
/// When the target cannot be registered, or latencies cannot be counted.
pub async fn run(
    stage: &Stage,
    options: &IsolationOptions,
    say: &dyn Fn(&str),
) -> Result<IsolationReport, Error> {
    let (hold, held) = watch::channel(false);
    let ledger = Arc::new(SharedLedger::new()?);
    let hangs = Receiver::start_holding(options.receiver, Arc::clone(&ledger), held).await?;
    stage.register(HANGS, &hangs.url()?).await?;
    let mut clients = clients(stage, options, &ledger)?;
    say("warming up");
    let mut failures = BTreeMap::new();
    let load = Load { duration: options.round, rate: Some(options.rate) };
    load.run(&mut clients).await?;
    say("all targets are well");
    let well = rounds(stage, options, &mut clients, &mut failures).await?;
    say("one target hangs");
    hold.send_replace(true);
    let before = hangs.tried();
    let hanging = rounds(stage, options, &mut clients, &mut failures).await?;
    let tried = hangs.tried() - before;
    say("it is well again; waiting for its messages");
    hold.send_replace(false);
    let healed = source::instant();
    ledger.settled(options.quiet).await;
    let [others, one] = [stage.ledger.lock().totals(), ledger.lock().totals()];
    Ok(IsolationReport {
        subject: "isolation",
        nodes: stage.nodes(),
        targets: stage.targets.len() + 1,
        rate: options.rate,
        all_well: well.0,
        one_hangs: hanging.0,
        p99_moved_percent: (hanging.0.p99_ms / well.0.p99_ms.max(f64::EPSILON) - 1.0) * 100.0,
        accept: [well.1, hanging.1],
        tried,
        caught_up_s: (one.missing() == 0).then(|| healed.elapsed().as_secs_f64()),
        accepted: others.accepted + one.accepted,
        lost: others.missing() + one.missing(),
        duplicated: others.duplicates + one.duplicates,
        failures,
        file_system: stage.file_system.clone(),
    })
}

/// Each client has its target; every target has its share of the clients.
fn clients(
    stage: &Stage,
    options: &IsolationOptions,
    ledger: &Arc<SharedLedger>,
) -> Result<Vec<Client>, Error> {
    let subject = SubjectOptions {
        subject: Subject::Messages,
        clients: options.clients,
        duration: options.round,
        warm_up: Duration::ZERO,
        rate: Some(options.rate),
        content_bytes: options.content_bytes,
        deliver: true,
        quiet: options.quiet,
        lose_one: false,
    };
    let targets = stage.targets.len() + 1;
    let numbered = shots(stage, &subject)?.into_iter().enumerate();
    Ok(numbered
        .map(|(number, client)| match number % targets {
            0 => client.sending_to(HANGS, ledger),
            other => {
                let target = stage.targets.get(other - 1).map_or(HANGS, String::as_str);
                client.sending_to(target, &stage.ledger)
            }
        })
        .collect())
}

/// From answer to arrival at the others, and from request to answer: of each the median round.
async fn rounds(
    stage: &Stage,
    options: &IsolationOptions,
    clients: &mut [Client],
    failures: &mut BTreeMap<String, u64>,
) -> Result<(Quantiles, Quantiles), Error> {
    let load = Load { duration: options.round, rate: Some(options.rate) };
    let (mut deliveries, mut accepts) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        stage.ledger.lock().measure_anew();
        let outcome = load.run(clients).await?;
        stage.ledger.settled(options.quiet).await;
        deliveries.push(stage.ledger.lock().latency());
        accepts.push(outcome.latency);
        for (reason, count) in outcome.failures {
            *failures.entry(reason).or_default() += count;
        }
    }
    Ok((median(&deliveries), median(&accepts)))
}

/// Of each quantile the median: one round that something else on the machine disturbed does not decide.
fn median(rounds: &[Quantiles]) -> Quantiles {
    let of = |value: fn(&Quantiles) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Quantiles {
        count: rounds.iter().map(|round| round.count).sum(),
        p50_ms: of(|round| round.p50_ms),
        p95_ms: of(|round| round.p95_ms),
        p99_ms: of(|round| round.p99_ms),
        max_ms: of(|round| round.max_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_disturbed_round_does_not_decide() {
        let round = |p99_ms| Quantiles { count: 10, p50_ms: 1.0, p95_ms: 2.0, p99_ms, max_ms: 9.0 };
        let found = median(&[round(3.0), round(500.0), round(4.0)]);
        assert_eq!((found.count, found.p99_ms), (30, 4.0));
        assert_eq!(median(&[]), Quantiles::default());
    }
}
