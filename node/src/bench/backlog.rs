//! Piles messages up for services that are paused, measures the accept rate on the way, then lets them go.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::histogram::Quantiles;
use super::report::quantiles;
use super::subject::shots;
use super::{Error, FileSystem, Load, Stage, Subject, SubjectOptions};
use crate::client::source;

/// The pile grows in rounds of this length.
const ROUND: Duration = Duration::from_millis(100);
/// A round in which nothing was accepted: so many in a row end the measurement.
const MOST_EMPTY: u32 = 100;

/// How a backlog is measured.
#[derive(Clone, Copy, Debug)]
pub struct BacklogOptions {
    /// Until so many messages wait.
    pub up_to: u64,
    /// The accept rate is measured after so many more.
    pub step: u64,
    /// For how long, each time.
    pub probe: Duration,
    /// Clients at a time.
    pub clients: usize,
    /// About so many bytes of content a message.
    pub content_bytes: usize,
    /// Nothing more is expected when nothing arrived for so long.
    pub quiet: Duration,
}

/// The accept rate at one depth.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// So many messages waited when it was measured.
    pub depth: u64,
    /// Messages accepted a second, one a request.
    pub accepted_per_s: f64,
    /// From request to answer.
    pub accept: Quantiles,
}

/// What a backlog did to the nodes.
#[derive(Clone, Debug, Serialize)]
pub struct BacklogReport {
    /// `backlog`.
    pub subject: &'static str,
    /// How many nodes.
    pub nodes: usize,
    /// The accept rate on the way.
    pub steps: Vec<Step>,
    /// Accepted in all.
    pub accepted: u64,
    /// Delivered a second once the services took messages again, from the first to the last.
    pub delivered_per_s: f64,
    /// Accepted and never arrived.
    pub lost: u64,
    /// Arrivals beyond the first.
    pub duplicated: u64,
    /// Requests without a 2xx, by reason.
    pub failures: BTreeMap<String, u64>,
    /// Where the nodes' data lay.
    pub file_system: Option<FileSystem>,
}

impl BacklogReport {
    /// The lines of the table.
    #[must_use]
    pub fn lines(&self) -> Vec<(String, String)> {
        let mut lines =
            vec![("subject".to_owned(), "backlog".to_owned()), ("nodes".to_owned(), self.nodes.to_string())];
        for step in &self.steps {
            let value = format!("{:.0}/s, p50/p95/p99/max {}", step.accepted_per_s, quantiles(&step.accept));
            lines.push((format!("accepted with {} waiting", step.depth), value));
        }
        lines.push(("delivered/s afterwards".to_owned(), format!("{:.0}", self.delivered_per_s)));
        lines.push(("accepted".to_owned(), self.accepted.to_string()));
        lines.push(("lost".to_owned(), self.lost.to_string()));
        lines.push(("duplicated".to_owned(), self.duplicated.to_string()));
        for (reason, count) in &self.failures {
            lines.push(("failed".to_owned(), format!("{count} x {reason}")));
        }
        lines
    }
}

/// Measures; `say` hears what is going on. The services of the stage must be paused.
///
/// # Errors
/// When nothing is accepted any more.
pub async fn run(
    stage: &Stage,
    options: &BacklogOptions,
    say: &dyn Fn(&str),
) -> Result<BacklogReport, Error> {
    let subject = |subject| SubjectOptions {
        subject,
        clients: options.clients,
        duration: options.probe,
        warm_up: Duration::ZERO,
        rate: None,
        content_bytes: options.content_bytes,
        deliver: false,
        quiet: options.quiet,
        lose_one: false,
    };
    let mut singles = shots(stage, &subject(Subject::Messages))?;
    let mut batches = shots(stage, &subject(Subject::Batch(100)))?;
    let (mut steps, mut failures) = (Vec::new(), BTreeMap::new());
    let (mut depth, mut empty) = (0, 0);
    loop {
        let measured = Load { duration: options.probe, rate: None }.run(&mut singles).await?;
        let seconds = measured.elapsed.as_secs_f64().max(f64::EPSILON);
        let accepted_per_s = measured.units as f64 / seconds;
        say(&format!("{depth} messages wait: {accepted_per_s:.0} accepted a second"));
        steps.push(Step { depth, accepted_per_s, accept: measured.latency });
        note(&mut failures, measured.failures);
        depth += measured.units;
        if depth >= options.up_to {
            break;
        }
        let next = options.up_to.min(depth + options.step.max(1));
        while depth < next {
            let filled = Load { duration: ROUND, rate: None }.run(&mut batches).await?;
            note(&mut failures, filled.failures);
            depth += filled.units;
            empty = if filled.units == 0 { empty + 1 } else { 0 };
            if empty > MOST_EMPTY {
                return Err(Error::Late(format!(
                    "nothing is accepted any more with {depth} messages waiting"
                )));
            }
        }
    }
    say("letting them go");
    let began = source::instant();
    stage.deliver(true).await?;
    stage.ledger.settled(options.quiet).await;
    let seconds = began.elapsed().as_secs_f64().max(f64::EPSILON);
    let totals = stage.ledger.lock().totals();
    // What is missing was waited for in vain.
    let waited = if totals.missing() > 0 { options.quiet.as_secs_f64() } else { 0.0 };
    Ok(BacklogReport {
        subject: "backlog",
        nodes: stage.nodes(),
        steps,
        accepted: totals.accepted,
        delivered_per_s: totals.delivered as f64 / (seconds - waited).max(f64::EPSILON),
        lost: totals.missing(),
        duplicated: totals.duplicates,
        failures,
        file_system: stage.file_system.clone(),
    })
}

fn note(all: &mut BTreeMap<String, u64>, new: BTreeMap<String, u64>) {
    for (reason, count) in new {
        *all.entry(reason).or_default() += count;
    }
}
