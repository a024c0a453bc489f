//! Writing parts of a copy, and what closes it.

use std::collections::HashSet;
use std::time::Instant;

use hub_core::id::MessageId;
use hub_core::message::Status;
use sqlx::Row;
use uuid::Uuid;

use super::{Import, ImportError, PART, WHOLE, columns};
use crate::copy::{Batch, Done, Grown, Key, Totals, Whole};
use crate::postgres::fault::{Fault, command, within};

const DAY_MS: i64 = 86_400_000;
/// Attempts of one statement: each can carry a KiB.
const ATTEMPTS: usize = 4_000;

const MAKE_DAY: &str = "SELECT hub_make_partitions(hub_time($1), hub_time($1))";
/// The ends that lists look for.
const ENDINGS: &str = "INSERT INTO endings (id, target, status, ended_at) \
     SELECT u.id, u.target, u.status, hub_time(u.ended) \
     FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int8[]) AS u(id, target, status, ended)";
/// Only if it stands where this process left it: nobody else goes on with the same copy.
const MARK: &str = "UPDATE store_copy SET seq = $1, keys_seen = $2, messages = $3, open = $4, dead_letters = $5, \
     attempts = $6, keys = $7 WHERE seq = $8 AND keys_seen = $9 AND copied_at IS NULL";
const COPIED: &str = "UPDATE store_copy SET copied_at = hub_now() WHERE copied_at IS NULL";
const COUNTERS: &str = include_str!("../sql/copy_counters.sql");
const COUNTED: &str = "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM deliveries), \
     (SELECT count(*) FROM endings WHERE status = 'dead_letter'), (SELECT count(*) FROM attempts), \
     (SELECT count(*) FROM idempotency)";

/// The days that have their partitions.
#[derive(Default)]
pub(super) struct Days(HashSet<i64>);

/// When an id was made, which decides its partition.
fn made_at(id: MessageId) -> i64 {
    i64::try_from(id.0.as_u128() >> 80).unwrap_or(i64::MAX)
}

impl Import {
    /// Writes one part of the messages.
    pub(crate) async fn write(&mut self, batch: &Batch) -> Result<(), ImportError> {
        let Some(last) = batch.messages.last() else { return Ok(()) };
        let deadline = self.clock.instant() + PART;
        self.make_days(&batch.messages, deadline).await?;
        self.begin_part(deadline).await?;
        let during = "writing messages";
        let written = columns::messages(&batch.messages).execute(&mut self.connection);
        within(during, deadline, written).await?;
        let open: Vec<_> = batch.messages.iter().filter_map(|row| Some((row, row.waits.as_ref()?))).collect();
        if !open.is_empty() {
            within(during, deadline, columns::open(&open).execute(&mut self.connection)).await?;
        }
        let dead_letters = self.write_endings(&batch.messages, deadline).await?;
        let mut attempts = 0;
        for chunk in batch.attempts.chunks(ATTEMPTS) {
            let written = columns::attempts(chunk).execute(&mut self.connection);
            attempts += within("writing attempts", deadline, written).await?.rows_affected();
        }
        let done = Done {
            seq: last.seq,
            messages: self.done.messages + batch.messages.len() as u64,
            open: self.done.open + open.len() as u64,
            dead_letters: self.done.dead_letters + dead_letters,
            attempts: self.done.attempts + attempts,
            ..self.done
        };
        self.end_part(done, deadline).await
    }

    /// Writes one part of the keys.
    pub(crate) async fn write_keys(&mut self, keys: &[Key]) -> Result<(), ImportError> {
        let deadline = self.clock.instant() + PART;
        self.begin_part(deadline).await?;
        let written = columns::keys(keys).execute(&mut self.connection);
        let kept = within("writing keys", deadline, written).await?.rows_affected();
        let done = Done {
            keys_seen: self.done.keys_seen + keys.len() as u64,
            keys: self.done.keys + kept,
            ..self.done
        };
        self.end_part(done, deadline).await
    }

    /// Writes the counters, once, and checks that everything is here.
    pub(crate) async fn complete(&mut self, grown: &[Grown], totals: &Totals) -> Result<(), ImportError> {
        let done = self.done;
        let copied = Totals {
            messages: done.messages,
            open: done.open,
            dead_letters: done.dead_letters,
            keys: done.keys_seen,
        };
        if copied != *totals {
            return Err(ImportError::Wrong(format!("{copied:?} were copied of {totals:?}")));
        }
        let deadline = self.clock.instant() + WHOLE;
        self.begin_part(deadline).await?;
        let first = within("closing the copy", deadline, sqlx::query(COPIED).execute(&mut self.connection));
        if first.await?.rows_affected() > 0 {
            let targets: Vec<&str> = grown.iter().map(|one| one.target.as_str()).collect();
            let accepted: Vec<i64> = grown.iter().map(|one| one.accepted.cast_signed()).collect();
            let delivered: Vec<i64> = grown.iter().map(|one| one.delivered.cast_signed()).collect();
            let write = sqlx::query(COUNTERS).bind(targets).bind(accepted).bind(delivered);
            within("writing the counters", deadline, write.execute(&mut self.connection)).await?;
        }
        let counted = sqlx::query(COUNTED).fetch_one(&mut self.connection);
        let counted = within("counting the copy", deadline, counted).await?;
        let written = [done.messages, done.open, done.dead_letters, done.attempts, done.keys];
        let names = ["messages", "open messages", "dead letters", "attempts", "keys"];
        for (column, (written, name)) in written.into_iter().zip(names).enumerate() {
            let found: i64 =
                counted.try_get(column).map_err(|error| Fault::of("counting the copy", &error))?;
            if found.cast_unsigned() != written {
                return Err(ImportError::Wrong(format!(
                    "{written} {name} were written, and the database holds {found}"
                )));
            }
        }
        command(&mut self.connection, "closing the copy", deadline, "COMMIT").await?;
        Ok(())
    }

    async fn make_days(&mut self, rows: &[Whole], deadline: Instant) -> Result<(), Fault> {
        for made in rows.iter().map(|row| made_at(row.message.id)) {
            if self.days.0.insert(made.div_euclid(DAY_MS)) {
                let make = sqlx::query(MAKE_DAY).bind(made).execute(&mut self.connection);
                within("making partitions", deadline, make).await?;
            }
        }
        Ok(())
    }

    async fn write_endings(&mut self, rows: &[Whole], deadline: Instant) -> Result<u64, Fault> {
        let rare = |row: &&Whole| row.waits.is_none() && row.status != Status::Delivered;
        let rare: Vec<&Whole> = rows.iter().filter(rare).collect();
        if rare.is_empty() {
            return Ok(0);
        }
        let ended = |row: &&Whole| row.processed_at.unwrap_or(row.message.created_at).as_millis();
        let write = sqlx::query(ENDINGS)
            .bind(rare.iter().map(|row| row.message.id.0).collect::<Vec<Uuid>>())
            .bind(rare.iter().map(|row| row.message.target.as_str()).collect::<Vec<_>>())
            .bind(rare.iter().map(|row| row.status.as_str()).collect::<Vec<_>>())
            .bind(rare.iter().map(ended).collect::<Vec<_>>());
        within("writing how messages ended", deadline, write.execute(&mut self.connection)).await?;
        Ok(rare.iter().filter(|row| row.status == Status::DeadLetter).count() as u64)
    }

    async fn begin_part(&mut self, deadline: Instant) -> Result<(), Fault> {
        command(&mut self.connection, "beginning a part of the copy", deadline, "BEGIN").await
    }

    /// How far it came, in the same transaction.
    async fn end_part(&mut self, done: Done, deadline: Instant) -> Result<(), ImportError> {
        let during = "writing how far the copy came";
        let mark = sqlx::query(MARK)
            .bind(done.seq)
            .bind(done.keys_seen.cast_signed())
            .bind(done.messages.cast_signed())
            .bind(done.open.cast_signed())
            .bind(done.dead_letters.cast_signed())
            .bind(done.attempts.cast_signed())
            .bind(done.keys.cast_signed())
            .bind(self.done.seq)
            .bind(self.done.keys_seen.cast_signed());
        let marked = within(during, deadline, mark.execute(&mut self.connection)).await?;
        if marked.rows_affected() != 1 {
            return Err(ImportError::Wrong("another process goes on with the same copy".to_owned()));
        }
        command(&mut self.connection, during, deadline, "COMMIT").await?;
        self.done = done;
        Ok(())
    }
}
