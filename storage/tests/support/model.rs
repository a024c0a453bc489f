//! The model: plain lists and words, written from the contract alone.

use std::collections::BTreeMap;
use std::time::Duration;

use hub_core::delivery::{SettleOutcome, Settlement};
use hub_core::id::{MessageId, RequestId};
use hub_core::message::{NewMessage, Status};
use hub_core::port::{AcceptRefusal, Accepted, CancelOutcome, DeadLetterOutcome, SweepReport};
use hub_core::time::Timestamp;
use hub_storage::sqlite::command::{ClaimDue, Granted, Insert, Sweep};
use hub_storage::sqlite::{Command, Reply};

use super::dump::{Shown, State};

/// Body, first message, when it was accepted, when the key was stored.
type Key = ([u8; 16], MessageId, i64, i64);

const DAY: i64 = 24 * 3_600 * 1_000;

#[derive(Clone, Debug)]
struct Row {
    number: u64,
    new: NewMessage,
    word: &'static str,
    due: i64,
    expires: i64,
    too_old: i64,
    attempt: u32,
    retries: u32,
    doubt: bool,
    claim: Option<(u64, i64)>,
    processed: Option<i64>,
    reason: Option<&'static str>,
    request: Option<RequestId>,
    /// Number, node, start, outcome.
    attempts: BTreeMap<u32, (u64, i64, &'static str)>,
    claimed_at: i64,
}

#[derive(Clone, Debug, Default)]
struct Totals {
    accepted: i64,
    delivered: i64,
}

/// The model's state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    rows: BTreeMap<MessageId, Row>,
    keys: BTreeMap<(String, String), Key>,
    totals: BTreeMap<String, Totals>,
    taken: u64,
    late: i64,
}

fn status(word: &str) -> Status {
    match word {
        "pending" => Status::Pending,
        "delivering" => Status::Delivering,
        "retrying" => Status::Retrying,
        "delivered" => Status::Delivered,
        "cancelled" => Status::Cancelled,
        "expired" => Status::Expired,
        "dead_letter" => Status::DeadLetter,
        "discarded" => Status::Discarded,
        other => panic!("{other}"),
    }
}

impl Row {
    fn open(&self) -> bool {
        ["pending", "delivering", "retrying"].contains(&self.word)
    }

    fn waits(&self) -> bool {
        ["pending", "retrying"].contains(&self.word)
    }

    fn end(&mut self, now: i64, word: &'static str) {
        (self.word, self.processed, self.claim) = (word, Some(now), None);
    }

    fn lapse(&mut self) {
        let Some((node, _)) = self.claim.take() else { return };
        self.word = if self.retries > 0 { "retrying" } else { "pending" };
        self.doubt = true;
        self.attempts.insert(self.attempt, (node, self.claimed_at, "no_answer"));
    }

    fn ends(&self) -> i64 {
        self.expires.min(self.too_old)
    }
}

impl Model {
    pub(crate) fn apply(&mut self, now: i64, request: RequestId, command: &Command) -> Reply {
        match command {
            Command::Insert(insert) => Reply::Inserted(self.insert(now, insert)),
            Command::Cancel(id) => Reply::Cancelled(self.cancel(now, *id, request)),
            Command::Replay(id) => Reply::DeadLetter(self.replay(now, *id, request)),
            Command::Discard(id) => Reply::DeadLetter(self.discard(now, *id, request)),
            Command::Claim(claim) => Reply::Claimed(self.claim(now, claim)),
            Command::Settle(all) => Reply::Settled(all.iter().map(|one| self.settle(now, one)).collect()),
            Command::Sweep(sweep) => Reply::Swept(self.sweep(now, sweep)),
        }
    }

    fn insert(&mut self, now: i64, insert: &Insert) -> Vec<Result<Accepted, AcceptRefusal>> {
        let before = self.clone();
        let mut answers = Vec::new();
        for item in &insert.items {
            let node = item.claim.as_ref().map(|claim| (claim.owner.0, claim.lease_end.as_millis()));
            answers.push(self.insert_one(now, &item.message, node, insert.max_backlog));
        }
        if insert.atomic && answers.iter().any(Result::is_err) {
            *self = before;
            for answer in &mut answers {
                if answer.is_ok() {
                    *answer = Err(AcceptRefusal::BatchRefused);
                }
            }
        }
        answers
    }

    fn insert_one(
        &mut self,
        now: i64,
        new: &NewMessage,
        claim: Option<(u64, i64)>,
        bound: u64,
    ) -> Result<Accepted, AcceptRefusal> {
        let answer =
            |id, created_at, replayed| Accepted { id, status: Status::Pending, created_at, replayed };
        if let Some(row) = self.rows.get(&new.id) {
            return Ok(answer(new.id, row.new.created_at, false));
        }
        let key =
            new.idempotency.as_ref().map(|key| ((key.caller.clone(), key.key.clone()), key.fingerprint.0));
        if let Some((name, body)) = &key
            && let Some((first, id, created, stored)) = self.keys.get(name)
            && now - stored < DAY
        {
            if first != body {
                return Err(AcceptRefusal::KeyReused);
            }
            return Ok(answer(*id, Timestamp::from_millis(*created), true));
        }
        let open = self.rows.values().filter(|row| row.open() && row.new.target == new.target).count();
        if open as u64 >= bound {
            return Err(AcceptRefusal::BacklogFull {
                target: new.target.clone(),
                retry_after: Duration::ZERO,
            });
        }
        let created = new.created_at.as_millis();
        if let Some((name, body)) = key {
            self.keys.insert(name, (body, new.id, created, now));
        }
        self.taken += 1;
        self.totals.entry(new.target.to_string()).or_default().accepted += 1;
        let row = Row {
            number: self.taken,
            new: new.clone(),
            word: if claim.is_some() { "delivering" } else { "pending" },
            due: new.deliver_at.map_or(created, Timestamp::as_millis),
            expires: new.expires_at.map_or(i64::MAX, Timestamp::as_millis),
            too_old: new.too_old_at.as_millis(),
            attempt: u32::from(claim.is_some()),
            retries: 0,
            doubt: false,
            claim,
            processed: None,
            reason: None,
            request: None,
            attempts: BTreeMap::new(),
            claimed_at: now,
        };
        self.rows.insert(new.id, row);
        Ok(answer(new.id, new.created_at, false))
    }

    fn cancel(&mut self, now: i64, id: MessageId, request: RequestId) -> CancelOutcome {
        let Some(row) = self.rows.get_mut(&id) else { return CancelOutcome::NotFound };
        if row.word == "cancelled" && row.request == Some(request) {
            return CancelOutcome::Cancelled { may_have_arrived: row.doubt };
        }
        if row.claim.is_some_and(|(_, lease)| lease <= now) {
            row.lapse();
        }
        if !row.waits() {
            return CancelOutcome::Conflict(status(row.word));
        }
        row.end(now, "cancelled");
        row.request = Some(request);
        CancelOutcome::Cancelled { may_have_arrived: row.doubt }
    }

    fn replay(&mut self, now: i64, id: MessageId, request: RequestId) -> DeadLetterOutcome {
        let Some(row) = self.rows.get_mut(&id) else { return DeadLetterOutcome::NotFound };
        if row.request == Some(request) {
            return DeadLetterOutcome::Done(Status::Pending);
        }
        if row.word != "dead_letter" {
            return DeadLetterOutcome::Conflict(status(row.word));
        }
        if row.expires <= now {
            return DeadLetterOutcome::Expired;
        }
        let age = row.new.too_old_at.as_millis() - row.new.created_at.as_millis();
        (row.word, row.due, row.too_old, row.retries) = ("pending", now, now + age, 0);
        (row.processed, row.reason, row.request) = (None, None, Some(request));
        DeadLetterOutcome::Done(Status::Pending)
    }

    fn discard(&mut self, now: i64, id: MessageId, request: RequestId) -> DeadLetterOutcome {
        let Some(row) = self.rows.get_mut(&id) else { return DeadLetterOutcome::NotFound };
        if row.word == "discarded" && row.request == Some(request) {
            return DeadLetterOutcome::Done(Status::Discarded);
        }
        if row.word != "dead_letter" {
            return DeadLetterOutcome::Conflict(status(row.word));
        }
        (row.word, row.processed, row.request) = ("discarded", Some(now), Some(request));
        DeadLetterOutcome::Done(Status::Discarded)
    }

    fn claim(&mut self, now: i64, claim: &ClaimDue) -> Vec<Granted> {
        for row in self.rows.values_mut().filter(|row| row.claim.is_some_and(|(_, lease)| lease <= now)) {
            row.lapse();
        }
        let mut wants: BTreeMap<&str, u32> = BTreeMap::new();
        for want in &claim.wants {
            *wants.entry(want.target.as_str()).or_default() += want.count;
        }
        let mut granted = Vec::new();
        for (target, mut left) in wants {
            let mut due: Vec<&mut Row> = self
                .rows
                .values_mut()
                .filter(|row| row.waits() && row.due <= now && row.new.target.as_str() == target)
                .collect();
            due.sort_by_key(|row| (std::cmp::Reverse(row.new.priority), row.due, row.new.id));
            for row in due {
                if left == 0 {
                    break;
                }
                if row.expires <= now {
                    row.end(now, "expired");
                    continue;
                }
                left -= 1;
                row.attempt += 1;
                row.word = "delivering";
                row.claimed_at = now;
                row.claim = Some((claim.owner.0, now + 8_000));
                granted.push(Granted {
                    message: row.new.id,
                    attempt: row.attempt,
                    lease_end: Timestamp::from_millis(now + 8_000),
                    retry_count: row.retries,
                });
            }
        }
        granted
    }

    fn settle(&mut self, now: i64, settlement: &Settlement) -> bool {
        let claim = &settlement.claim;
        let attempt = settlement
            .attempt
            .as_ref()
            .map(|attempt| (attempt.node.0, attempt.started_at.as_millis(), attempt.outcome.as_str()));
        let Some(row) = self.rows.get_mut(&claim.message) else {
            self.late += 1;
            return false;
        };
        let holds = row.attempt == claim.attempt && row.claim.is_some_and(|(node, _)| node == claim.owner.0);
        if !holds {
            let repeated = attempt.is_some() && row.attempts.get(&claim.attempt).copied() == attempt;
            self.late += i64::from(!repeated);
            return repeated;
        }
        if let Some(attempt) = attempt {
            row.attempts.insert(claim.attempt, attempt);
            row.doubt |= attempt.2 == "no_answer";
        }
        match settlement.outcome {
            SettleOutcome::Delivered => {
                row.end(now, "delivered");
                self.totals.entry(row.new.target.to_string()).or_default().delivered += 1;
            }
            SettleOutcome::Expired => row.end(now, "expired"),
            SettleOutcome::Dead(_) => {
                row.end(now, "dead_letter");
                row.reason = Some("exhausted");
            }
            SettleOutcome::Released => {
                row.claim = None;
                row.word = if row.retries > 0 { "retrying" } else { "pending" };
            }
            SettleOutcome::RetryAt { at, counted } => {
                row.claim = None;
                row.word = "retrying";
                row.due = at.as_millis();
                row.retries += u32::from(counted);
            }
        }
        true
    }

    fn sweep(&mut self, now: i64, sweep: &Sweep) -> SweepReport {
        let limit = sweep.limit as usize;
        let mut lapsed: Vec<_> =
            self.rows.values_mut().filter(|row| row.claim.is_some_and(|(_, lease)| lease <= now)).collect();
        lapsed.sort_by_key(|row| (row.claim.map(|(_, lease)| lease), row.new.id));
        let lapses = lapsed.into_iter().take(limit).map(Row::lapse).count();
        let mut ended: Vec<_> =
            self.rows.values_mut().filter(|row| row.waits() && row.ends() <= now).collect();
        ended.sort_by_key(|row| (row.ends(), row.new.id));
        let mut report = SweepReport::default();
        let mut ends = 0;
        for row in ended.into_iter().take(limit) {
            ends += 1;
            if row.expires <= now {
                row.end(now, "expired");
                report.expired += 1;
            } else {
                row.end(now, "dead_letter");
                let gone = sweep.gone.contains(&row.new.target);
                row.reason = Some(if gone { "no_target" } else { "too_old" });
                report.buried += 1;
            }
        }
        let before = now - sweep.retention.as_millis() as i64;
        let mut old: Vec<_> = self
            .rows
            .values()
            .filter(|row| !row.open() && row.word != "dead_letter" && row.processed <= Some(before))
            .map(|row| (row.processed, row.number, row.new.id))
            .collect();
        old.sort_unstable();
        old.truncate(limit);
        for (_, _, id) in &old {
            self.rows.remove(id);
        }
        report.pruned = old.len() as u64;
        let mut keys: Vec<_> = self
            .keys
            .iter()
            .filter(|(_, (_, _, _, stored))| *stored <= now - DAY)
            .map(|(name, (_, _, _, stored))| (*stored, name.clone()))
            .collect();
        keys.sort();
        keys.truncate(limit);
        for (_, name) in &keys {
            self.keys.remove(name);
        }
        report.more = limit > 0 && [lapses, ends, old.len(), keys.len()].iter().any(|count| *count >= limit);
        let next = self.rows.values().filter(|row| row.waits()).map(Row::ends).min();
        report.next = next.map(Timestamp::from_millis);
        report
    }

    /// As [`super::dump::shown`] reads it.
    pub(crate) fn shown(&self) -> State {
        let shown = |row: &Row| -> Shown {
            let attempts = row
                .attempts
                .iter()
                .map(|(number, (_, _, outcome))| (*number, (*outcome).to_owned()))
                .collect();
            let reason = row.reason.map(str::to_owned);
            (row.word.to_owned(), row.retries, row.attempt, row.doubt, row.processed, reason, attempts)
        };
        let messages = self.rows.iter().map(|(id, row)| (id.0.as_bytes().to_vec(), shown(row))).collect();
        let count = |target: &str, which: &dyn Fn(&Row) -> bool| {
            self.rows.values().filter(|row| row.new.target.as_str() == target && which(row)).count() as i64
        };
        let backlog = self
            .totals
            .iter()
            .map(|(target, totals)| {
                let numbers = [
                    count(target, &Row::open),
                    count(target, &|row| row.claim.is_some()),
                    totals.accepted,
                    totals.delivered,
                    count(target, &|row| row.word == "dead_letter"),
                ];
                (target.clone(), numbers)
            })
            .collect();
        State { messages, backlog, late: self.late }
    }
}
