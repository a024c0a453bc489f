//! What is measured at a steady load: messages one by one or in batches, registry writes, reads.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, Uri};
use serde::Deserialize;

use super::connection::Reply;
use super::stage::SENDER;
use super::usage::Usage;
use super::{Connection, Error, Load, Outcome, Report, SharedLedger, Shot, Stage, verify};
use crate::client::source;

/// Until a request counts as unanswered.
const ANSWER: Duration = Duration::from_secs(15);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One message a request.
    Messages,
    /// So many messages a request.
    Batch(usize),
    /// Registrations that change something.
    Control,
    /// Reads of a service: fresh on any node, or from the node's own view.
    Reads {
        /// From the node's own view.
        stale: bool,
    },
}

/// How it is measured.
#[derive(Clone, Copy, Debug)]
pub struct SubjectOptions {
    /// What.
    pub subject: Subject,
    /// Clients at a time.
    pub clients: usize,
    /// For how long.
    pub duration: Duration,
    /// Before that, not counted.
    pub warm_up: Duration,
    /// Requests a second, all clients together; as fast as possible if `None`.
    pub rate: Option<f64>,
    /// About so many bytes of content a message.
    pub content_bytes: usize,
    /// Deliveries on.
    pub deliver: bool,
    /// Nothing that was accepted is still expected when nothing arrived for so long.
    pub quiet: Duration,
    /// Self-check: one arrival is lost on purpose.
    pub lose_one: bool,
}

/// Measures; `say` hears what is going on.
///
/// # Errors
/// When the measurement cannot be made; lost messages are no error but part of the report.
pub async fn run(stage: &Stage, options: &SubjectOptions, say: &dyn Fn(&str)) -> Result<Report, Error> {
    let mut shots = shots(stage, options)?;
    if !options.warm_up.is_zero() {
        say("warming up");
        Load { duration: options.warm_up, rate: options.rate }.run(&mut shots).await?;
    }
    stage.ledger.lock().measure_anew();
    if options.lose_one {
        stage.ledger.lose_one();
    }
    let before = stage.usage();
    let own_before = Usage::of(std::process::id()).unwrap_or_default();
    let delivered_before = stage.ledger.lock().totals().delivered;
    say(&format!("measuring for {:.0} s", options.duration.as_secs_f64()));
    let outcome = Load { duration: options.duration, rate: options.rate }.run(&mut shots).await?;
    let delivered = stage.ledger.lock().totals().delivered.saturating_sub(delivered_before);
    let own_used = Usage::of(std::process::id()).unwrap_or_default().cpu_s - own_before.cpu_s;
    let mut report = report(stage, options, &outcome, delivered);
    report.generator_cpu_s = own_used;
    if options.subject.has_messages() {
        account(stage, options, &mut report, say).await?;
    }
    report.node_usage = stage.used_since(&before).await;
    let written: u64 = report.node_usage.iter().map(|usage| usage.written_bytes).sum();
    if stage.cluster.is_some() && outcome.units > 0 {
        report.written_bytes_per_message = Some(written as f64 / outcome.units as f64);
    }
    Ok(report)
}

impl Subject {
    const fn has_messages(self) -> bool {
        matches!(self, Self::Messages | Self::Batch(_))
    }

    fn name(self) -> String {
        match self {
            Self::Messages => "messages".to_owned(),
            Self::Batch(size) => format!("batch of {size}"),
            Self::Control => "control".to_owned(),
            Self::Reads { stale: false } => "reads".to_owned(),
            Self::Reads { stale: true } => "stale reads".to_owned(),
        }
    }
}

/// Waits for the last deliveries (or looks into the store), and writes down what became of every id.
async fn account(
    stage: &Stage,
    options: &SubjectOptions,
    report: &mut Report,
    say: &dyn Fn(&str),
) -> Result<(), Error> {
    let ended = source::instant();
    if options.deliver {
        say("waiting for the last deliveries");
        stage.ledger.settled(options.quiet).await;
        if stage.ledger.lock().totals().missing() == 0 {
            report.drain_s = Some(ended.elapsed().as_secs_f64());
        }
    }
    let totals = stage.ledger.lock().totals();
    report.accepted = totals.accepted;
    report.duplicated = totals.duplicates;
    report.unanswered = totals.unanswered;
    if options.deliver {
        report.delivered = totals.delivered;
        report.lost = totals.missing();
        report.delivery = Some(stage.ledger.lock().latency());
        report.missing = verify::statuses(stage, 20).await;
    } else {
        say("looking every message up in the store");
        report.delivered = verify::stored(stage).await?;
        report.lost = report.accepted.saturating_sub(report.delivered);
    }
    Ok(())
}

fn report(stage: &Stage, options: &SubjectOptions, outcome: &Outcome, delivered: u64) -> Report {
    let seconds = outcome.elapsed.as_secs_f64().max(f64::EPSILON);
    let messages = options.subject.has_messages();
    Report {
        subject: options.subject.name(),
        nodes: stage.nodes(),
        clients: options.clients,
        rate: options.rate,
        deliver: messages.then_some(options.deliver),
        seconds,
        accepted_per_s: outcome.units as f64 / seconds,
        delivered_per_s: (messages && options.deliver).then(|| delivered as f64 / seconds),
        accept: outcome.latency,
        delivery: None,
        drain_s: None,
        accepted: outcome.units,
        delivered: 0,
        lost: 0,
        duplicated: 0,
        unanswered: 0,
        missing: Vec::new(),
        failures: outcome.failures.clone(),
        written_bytes_per_message: None,
        node_usage: Vec::new(),
        generator_cpu_s: 0.0,
        file_system: stage.file_system.clone(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// Clients of the subject, one connection each.
///
/// # Errors
/// When an address is not plain http.
pub(super) fn shots(stage: &Stage, options: &SubjectOptions) -> Result<Vec<Client>, Error> {
    let path = match options.subject {
        Subject::Messages => "/api/v1/messages".to_owned(),
        Subject::Batch(_) => "/api/v1/messages/batch".to_owned(),
        Subject::Control => "/api/v1/services/register".to_owned(),
        Subject::Reads { stale } => {
            let target = stage.targets.first().map(String::as_str).unwrap_or_default();
            format!("/api/v1/services/{target}{}", if stale { "?consistency=stale" } else { "" })
        }
    };
    let path: Uri = path.parse().map_err(|error| Error::Usage(format!("{path}: {error}")))?;
    let receiver = stage.receiver_url()?.as_str().trim_end_matches('/').to_owned();
    let connections = stage.connections(options.clients)?;
    let client = |(number, connection)| Client {
        connection,
        path: path.clone(),
        subject: options.subject,
        ledger: Arc::clone(&stage.ledger),
        target: stage.targets.get(number % stage.targets.len().max(1)).cloned().unwrap_or_default(),
        pad: "x".repeat(options.content_bytes.saturating_sub(r#"{"n":123456,"pad":""}"#.len())),
        number,
        fired: 0,
        receiver: receiver.clone(),
    };
    Ok(connections.into_iter().enumerate().map(client).collect())
}

/// One client of any subject.
pub(super) struct Client {
    connection: Connection,
    path: Uri,
    subject: Subject,
    ledger: Arc<SharedLedger>,
    target: String,
    pad: String,
    number: usize,
    fired: u64,
    receiver: String,
}

impl Client {
    /// The same client, but what it sends goes to `target` and into `ledger`.
    pub(super) fn sending_to(self, target: &str, ledger: &Arc<SharedLedger>) -> Self {
        Self { target: target.to_owned(), ledger: Arc::clone(ledger), ..self }
    }

    /// JSON is put together by hand: every part is ours and needs no escapes.
    fn push_message(&self, out: &mut String, number: u64) {
        use std::fmt::Write as _;
        let written = write!(
            out,
            r#"{{"sender_service":"{SENDER}","target_service":"{}","message_type":"bench","content":{{"n":{number},"pad":"{}"}}}}"#,
            self.target, self.pad
        );
        // Writing to a string cannot fail.
        let _infallible = written;
    }

    fn body(&self) -> String {
        let mut body = String::with_capacity(256 + self.pad.len());
        match self.subject {
            Subject::Messages => self.push_message(&mut body, self.fired),
            Subject::Batch(size) => {
                body.push_str(r#"{"messages":["#);
                for item in 0..size {
                    if item > 0 {
                        body.push(',');
                    }
                    self.push_message(&mut body, self.fired);
                }
                body.push_str("]}");
            }
            Subject::Control => {
                body = format!(
                    r#"{{"name":"bench-c{}","instances":[{{"id":"i","url":"{}"}}],"health_check":{{"kind":"none"}},"metadata":{{"n":"{}"}}}}"#,
                    self.number, self.receiver, self.fired
                );
            }
            Subject::Reads { .. } => {}
        }
        body
    }
}

impl Shot for Client {
    async fn fire(&mut self) -> Result<u64, String> {
        self.fired += 1;
        let body = Bytes::from(self.body());
        let method = if matches!(self.subject, Subject::Reads { .. }) { Method::GET } else { Method::POST };
        let reply = self.connection.request(method, &self.path, None, body, ANSWER).await?;
        if !reply.status.is_success() {
            return Err(reason(&reply));
        }
        match self.subject {
            Subject::Messages => {
                let id = message_id(&reply.body).ok_or("a 2xx without an id")?;
                self.ledger.lock().accept(id, source::instant());
                Ok(1)
            }
            Subject::Batch(_) => batch(&reply.body, &self.ledger),
            Subject::Control | Subject::Reads { .. } => Ok(1),
        }
    }
}

/// A refusal in few words, so that equal ones can be counted.
pub(super) fn reason(reply: &Reply) -> String {
    let problem = crate::client::Problem::parse(reply.status.as_u16(), &reply.body);
    if problem.code.is_empty() {
        format!("HTTP {}", problem.status)
    } else {
        format!("{} {}", problem.code, problem.title)
    }
}

/// The id in the answer to one message.
pub(super) fn message_id(body: &[u8]) -> Option<u128> {
    #[derive(Deserialize)]
    struct Accepted {
        id: uuid::Uuid,
    }
    serde_json::from_slice::<Accepted>(body).ok().map(|accepted| accepted.id.as_u128())
}

/// Writes every accepted message of a batch down; says so if any was refused.
fn batch(body: &[u8], ledger: &SharedLedger) -> Result<u64, String> {
    #[derive(Deserialize)]
    struct Item {
        id: Option<uuid::Uuid>,
        code: Option<String>,
    }
    #[derive(Deserialize)]
    struct Batch {
        results: Vec<Item>,
    }
    let batch: Batch = serde_json::from_slice(body).map_err(|_| "a 2xx that cannot be read".to_owned())?;
    let now = source::instant();
    let mut accepted = 0;
    let mut refused = None;
    let mut ledger = ledger.lock();
    for item in batch.results {
        match (item.id, item.code) {
            (Some(id), None) => {
                ledger.accept(id.as_u128(), now);
                accepted += 1;
            }
            (_, code) => refused = Some(code.unwrap_or_else(|| "no id".to_owned())),
        }
    }
    refused.map_or(Ok(accepted), |code| Err(format!("part of a batch refused: {code}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found() {
        let id = uuid::Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001);
        let body = format!(r#"{{"id":"{id}","status":"pending","created_at":"x"}}"#);
        assert_eq!(message_id(body.as_bytes()), Some(id.as_u128()));
        assert_eq!(message_id(b"{}"), None);
    }

    #[test]
    fn a_batch_is_written_down_item_by_item() {
        let ledger = SharedLedger::new().unwrap();
        let (a, b) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
        let good =
            format!(r#"{{"results":[{{"id":"{a}","status":"pending"}},{{"id":"{b}","status":"pending"}}]}}"#);
        assert_eq!(batch(good.as_bytes(), &ledger), Ok(2));
        let mixed = format!(
            r#"{{"results":[{{"id":"{}","status":"pending"}},{{"status":422,"code":"HUB-1003"}}]}}"#,
            uuid::Uuid::from_u128(3)
        );
        assert!(batch(mixed.as_bytes(), &ledger).unwrap_err().contains("HUB-1003"));
        assert_eq!(ledger.lock().totals().accepted, 3);
    }
}
