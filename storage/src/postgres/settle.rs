//! How attempts end: many in one statement, each only under its claim.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use hub_core::delivery::{SettleOutcome, Settlement};
use hub_core::id::ServiceName;
use hub_core::message::Status;
use hub_core::port::StoreError;
use hub_core::time::Timestamp;
use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use uuid::Uuid;

use super::fault::Fault;
use super::store::Inner;
use super::{row, text};

pub(super) const END: &str = include_str!("sql/end.sql");
pub(super) const GIVE_BACK: &str = include_str!("sql/give_back.sql");
pub(super) const SETTLED_BEFORE: &str = "SELECT a.id, a.number FROM \
     unnest($1::uuid[], $2::int4[], $3::int8[], $4::int8[], $5::text[]) AS u(id, number, node, started, outcome) \
     JOIN attempts a ON a.id = ANY (ARRAY[u.id]) AND a.number = ANY (ARRAY[u.number]) AND a.node = u.node AND a.outcome = u.outcome \
     AND a.started_at = hub_time(u.started)";

/// Most settlements of one statement.
const AT_ONCE: usize = 512;
/// The pause before the same statement is sent again.
const PAUSE_MS: u64 = 50;

/// A message and the number of an attempt.
type Name = (Uuid, i32);

fn number(attempt: u32) -> i32 {
    i32::try_from(attempt).unwrap_or(i32::MAX)
}

fn name(settlement: &Settlement) -> Name {
    (settlement.claim.message.0, number(settlement.claim.attempt))
}

/// The columns that both statements share.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    attempts: Vec<i32>,
    owners: Vec<i64>,
    errors: Vec<Option<Cow<'a, str>>>,
    unanswered: Vec<bool>,
    noted: Vec<bool>,
    nodes: Vec<Option<i64>>,
    started: Vec<Option<i64>>,
    durations: Vec<Option<i64>>,
    outcomes: Vec<Option<&'static str>>,
    http: Vec<Option<i32>>,
    instances: Vec<Option<&'a str>>,
    classes: Vec<Option<Cow<'a, str>>>,
    responses: Vec<Option<Cow<'a, str>>>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, settlement: &'a Settlement) {
        let attempt = settlement.attempt.as_ref();
        let (id, number) = name(settlement);
        self.ids.push(id);
        self.attempts.push(number);
        self.owners.push(settlement.claim.owner.0.cast_signed());
        self.errors.push(settlement.error.as_deref().map(text::shown));
        self.unanswered.push(match attempt {
            Some(attempt) => attempt.outcome.may_have_arrived(),
            // A retry without a word about the attempt: nobody knows.
            None => matches!(settlement.outcome, SettleOutcome::RetryAt { .. }),
        });
        self.noted.push(attempt.is_some());
        self.nodes.push(attempt.map(|attempt| attempt.node.0.cast_signed()));
        self.started.push(attempt.map(|attempt| attempt.started_at.as_millis()));
        self.durations.push(attempt.map(|attempt| i64::from(attempt.duration_ms)));
        self.outcomes.push(attempt.map(|attempt| attempt.outcome.as_str()));
        self.http.push(attempt.and_then(|attempt| attempt.http_status.map(i32::from)));
        self.instances.push(attempt.and_then(|attempt| Some(attempt.instance.as_ref()?.as_str())));
        self.classes.push(attempt.and_then(|attempt| attempt.error_class.as_deref().map(text::shown)));
        self.responses.push(attempt.and_then(|attempt| attempt.response.as_deref().map(text::shown)));
    }

    /// Binds what follows the columns that differ.
    fn bind<'q>(self, query: Query<'q, Postgres, PgArguments>, part: i64) -> Query<'q, Postgres, PgArguments>
    where
        'a: 'q,
    {
        query
            .bind(self.errors)
            .bind(self.unanswered)
            .bind(self.noted)
            .bind(self.nodes)
            .bind(self.started)
            .bind(self.durations)
            .bind(self.outcomes)
            .bind(self.http)
            .bind(self.instances)
            .bind(self.classes)
            .bind(self.responses)
            .bind(self.owners)
            .bind(part)
    }
}

/// The final state that an outcome leads to, and why.
fn end(outcome: &SettleOutcome) -> Option<(&'static str, Option<&'static str>)> {
    match outcome {
        SettleOutcome::Delivered => Some((Status::Delivered.as_str(), None)),
        SettleOutcome::Dead(reason) => Some((Status::DeadLetter.as_str(), Some(reason.as_str()))),
        SettleOutcome::Expired => Some((Status::Expired.as_str(), None)),
        SettleOutcome::RetryAt { .. } | SettleOutcome::Released => None,
    }
}

fn ending<'q>(settlements: &[&'q Settlement], part: i64) -> Query<'q, Postgres, PgArguments> {
    let mut columns = Columns::default();
    settlements.iter().for_each(|settlement| columns.push(settlement));
    let ends = || settlements.iter().filter_map(|settlement| end(&settlement.outcome));
    let statuses: Vec<&'static str> = ends().map(|(status, _)| status).collect();
    let reasons: Vec<Option<&'static str>> = ends().map(|(_, reason)| reason).collect();
    let query = sqlx::query(END)
        .bind(std::mem::take(&mut columns.ids))
        .bind(std::mem::take(&mut columns.attempts))
        .bind(statuses)
        .bind(reasons);
    columns.bind(query, part)
}

fn giving_back<'q>(
    settlements: &[&'q Settlement],
    part: i64,
    now: Timestamp,
) -> Query<'q, Postgres, PgArguments> {
    let mut columns = Columns::default();
    settlements.iter().for_each(|settlement| columns.push(settlement));
    let (mut waits, mut counted) = (Vec::new(), Vec::new());
    for settlement in settlements {
        let retry = match &settlement.outcome {
            SettleOutcome::RetryAt { at, counted } => Some((at.since(now), *counted)),
            _ => None,
        };
        waits.push(retry.map(|(wait, _)| row::millis(wait)));
        counted.push(i32::from(retry.is_some_and(|(_, counted)| counted)));
    }
    let query = sqlx::query(GIVE_BACK)
        .bind(std::mem::take(&mut columns.ids))
        .bind(std::mem::take(&mut columns.attempts))
        .bind(waits)
        .bind(counted);
    columns.bind(query, part)
}

/// Ends attempts; see the port.
pub(super) async fn settle(
    inner: &Inner,
    settlements: &[Settlement],
    deadline: Instant,
) -> Result<Vec<bool>, StoreError> {
    let mut results = Vec::with_capacity(settlements.len());
    for chunk in settlements.chunks(AT_ONCE) {
        match settle_chunk(inner, chunk, deadline).await {
            Ok(part) => results.extend(part),
            // A part was written: "certainly not done" would not be true of the whole.
            Err(error) if !results.is_empty() => return Err(StoreError::Unknown(error.to_string())),
            Err(error) => return Err(error),
        }
    }
    Ok(results)
}

async fn settle_chunk(
    inner: &Inner,
    settlements: &[Settlement],
    deadline: Instant,
) -> Result<Vec<bool>, StoreError> {
    let (ends, waits): (Vec<&Settlement>, Vec<&Settlement>) =
        settlements.iter().partition(|settlement| end(&settlement.outcome).is_some());
    let mut done: HashMap<Name, ()> = HashMap::new();
    let mut unknown = false;
    if !ends.is_empty() {
        let rows = repeat(inner, deadline, &mut unknown, |part| ending(&ends, part)).await?;
        for found in &rows {
            done.insert((row::get(found, 0)?, row::get(found, 1)?), ());
            let target: ServiceName = row::service(found, 2)?;
            inner.depths.add(&target, -1);
        }
    }
    if !waits.is_empty() {
        let now = inner.ports.clock.now();
        let rows = repeat(inner, deadline, &mut unknown, |part| giving_back(&waits, part, now)).await;
        let rows = rows.map_err(|error| {
            // The ends are written, so "certainly not done" would not be true of the whole.
            if ends.is_empty() { error } else { StoreError::Unknown(error.to_string()) }
        })?;
        for found in &rows {
            done.insert((row::get(found, 0)?, row::get(found, 1)?), ());
        }
    }
    let late: Vec<&Settlement> =
        settlements.iter().filter(|settlement| !done.contains_key(&name(settlement))).collect();
    if !late.is_empty() {
        for found in &settled_before(inner, &late, deadline).await? {
            done.insert((row::get(found, 0)?, row::get(found, 1)?), ());
        }
    }
    Ok(settlements.iter().map(|settlement| done.contains_key(&name(settlement))).collect())
}

/// Sends a statement, and sends it again while its outcome is unknown: what it did already it does not do again.
async fn repeat<'q>(
    inner: &Inner,
    deadline: Instant,
    unknown: &mut bool,
    query: impl Fn(i64) -> Query<'q, Postgres, PgArguments> + Send,
) -> Result<Vec<PgRow>, StoreError> {
    loop {
        let part = inner.parts.take();
        let query = query(part.number);
        let fault = match inner.work.write("ending attempts", deadline, query).await {
            Ok(rows) => {
                inner.parts.put(part);
                return Ok(rows);
            }
            Err(fault) => fault,
        };
        *unknown |= matches!(fault, Fault::Lost { .. });
        let again = fault.is_collision() || *unknown;
        let pause = Duration::from_millis(PAUSE_MS / 2 + inner.ports.ids.below(PAUSE_MS));
        if !again || inner.ports.clock.instant() + pause >= deadline {
            let error = StoreError::from(fault);
            return Err(if *unknown { StoreError::Unknown(error.to_string()) } else { error });
        }
        tokio::time::sleep(pause).await;
    }
}

/// The same settlement was written before: its answer was lost on the way, and it is asked again.
async fn settled_before(
    inner: &Inner,
    late: &[&Settlement],
    deadline: Instant,
) -> Result<Vec<PgRow>, StoreError> {
    let mut columns = Columns::default();
    late.iter().filter(|one| one.attempt.is_some()).for_each(|one| columns.push(one));
    if columns.ids.is_empty() {
        return Ok(Vec::new());
    }
    let query = || {
        sqlx::query(SETTLED_BEFORE)
            .bind(columns.ids.clone())
            .bind(columns.attempts.clone())
            .bind(columns.nodes.clone())
            .bind(columns.started.clone())
            .bind(columns.outcomes.clone())
    };
    inner.work.read("reading attempts", deadline, query).await.map_err(Fault::of_read)
}
