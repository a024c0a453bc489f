//! Rows as the state machine holds them in memory, and back from the database.

use std::sync::Arc;

use hub_core::delivery::AttemptOutcome;
use hub_core::id::{MessageId, NodeId, ServiceName};
use hub_core::message::{Attempt, NewMessage, Priority, Status};
use hub_core::time::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, Type};
use uuid::Uuid;

use super::fault::Fault;

/// Columns of an open message `d`, in the order that [`Open::read`] expects.
macro_rules! open_columns {
    () => {
        "d.id, d.seq, d.target, d.priority, d.status, d.created_at, d.due, d.expires_at, d.too_old_at, d.attempt, \
         d.retry_count, d.may_have_arrived, d.owner, d.term, d.claimed_at, d.lease_end, d.error_message, d.checksum"
    };
}
pub(super) use open_columns;

/// Who holds a claim, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) owner: NodeId,
    pub(super) term: u64,
    pub(super) claimed_at: Timestamp,
    pub(super) lease_end: Timestamp,
}

/// What is said of an attempt whose node did not come to report it.
pub(super) const UNREPORTED: &str = "the node that made the attempt did not report how it ended";

impl Hold {
    /// The attempt under this claim, when nobody knows how it ended.
    pub(super) fn unreported(&self, number: u32) -> Attempt {
        Attempt {
            number,
            node: self.owner,
            instance: None,
            started_at: self.claimed_at,
            duration_ms: u32::try_from(self.lease_end.since(self.claimed_at).as_millis()).unwrap_or(u32::MAX),
            outcome: AttemptOutcome::NoAnswer,
            http_status: None,
            error_class: Some("lease_expired".into()),
            response: None,
        }
    }
}

/// An open message: its row in `deliveries`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) id: MessageId,
    pub(super) seq: i64,
    pub(super) target: ServiceName,
    pub(super) priority: Priority,
    pub(super) status: Status,
    pub(super) created_at: Timestamp,
    pub(super) due: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) too_old_at: Timestamp,
    /// Number of the last attempt that was claimed.
    pub(super) attempt: u32,
    pub(super) retry_count: u32,
    pub(super) may_have_arrived: bool,
    pub(super) hold: Option<Hold>,
    pub(super) error: Option<Arc<str>>,
}

impl Open {
    /// When it ends if it is still waiting then.
    pub(super) fn ends_at(&self) -> Timestamp {
        self.expires_at.map_or(self.too_old_at, |expires| expires.min(self.too_old_at))
    }

    /// Over everything that decides its fate.
    pub(super) fn checksum(&self) -> u32 {
        let mut sum = Sum::new();
        sum.bytes(self.id.0.as_bytes()).int(self.seq).text(self.target.as_str());
        sum.int(self.priority.get().into()).text(self.status.as_str());
        sum.int(self.created_at.as_millis()).int(self.due.as_millis());
        sum.option(self.expires_at.map(Timestamp::as_millis)).int(self.too_old_at.as_millis());
        sum.int(self.attempt.into()).int(self.retry_count.into()).int(self.may_have_arrived.into());
        if let Some(hold) = &self.hold {
            sum.int(hold.owner.0.cast_signed()).int(hold.term.cast_signed());
            sum.int(hold.claimed_at.as_millis()).int(hold.lease_end.as_millis());
        }
        sum.text(self.error.as_deref().unwrap_or_default());
        sum.0
    }

    /// From a row that starts at column `at` with `open_columns!`; `None` where an outer join found nothing.
    pub(super) fn read(row: &SqliteRow, at: usize) -> Result<Option<Self>, Fault> {
        let Some(id) = get::<Option<&[u8]>>(row, at, "id")? else { return Ok(None) };
        let id = message_id(id)?;
        let owner: Option<i64> = get(row, at + 12, "owner")?;
        let hold = match owner {
            Some(owner) => Some(Hold {
                owner: NodeId(owner.cast_unsigned()),
                term: get::<i64>(row, at + 13, "term")?.cast_unsigned(),
                claimed_at: time(row, at + 14, "claimed_at")?,
                lease_end: time(row, at + 15, "lease_end")?,
            }),
            None => None,
        };
        let open = Self {
            id,
            seq: get(row, at + 1, "seq")?,
            target: service(row, at + 2, "target")?,
            priority: priority(row, at + 3)?,
            status: status(row, at + 4)?,
            created_at: time(row, at + 5, "created_at")?,
            due: time(row, at + 6, "due")?,
            expires_at: optional_time(row, at + 7, "expires_at")?,
            too_old_at: time(row, at + 8, "too_old_at")?,
            attempt: get(row, at + 9, "attempt")?,
            retry_count: get(row, at + 10, "retry_count")?,
            may_have_arrived: get(row, at + 11, "may_have_arrived")?,
            hold,
            error: text(row, at + 16, "error_message")?,
        };
        if i64::from(open.checksum()) != get::<i64>(row, at + 17, "checksum")? {
            return Err(Fault::Corrupt(format!("delivery row of {id} does not fit its checksum")));
        }
        Ok(Some(open))
    }
}

/// Over what a sender gave: noticed when it is read to be delivered or shown.
pub(super) fn content_checksum(message: &NewMessage) -> u32 {
    envelope_checksum(
        &[message.sender.as_str(), message.target.as_str(), &message.message_type, &message.content],
        message.metadata.as_deref(),
        message.traceparent.as_deref(),
        message.id,
        message.created_at,
    )
}

/// As [`content_checksum`], from its parts.
pub(super) fn envelope_checksum(
    texts: &[&str],
    metadata: Option<&str>,
    traceparent: Option<&str>,
    id: MessageId,
    created_at: Timestamp,
) -> u32 {
    let mut sum = Sum::new();
    sum.bytes(id.0.as_bytes()).int(created_at.as_millis());
    for text in texts {
        sum.text(text);
    }
    sum.text(metadata.unwrap_or_default()).text(traceparent.unwrap_or_default());
    sum.0
}

/// A running CRC32C over fields, each with its length.
pub(super) struct Sum(pub(super) u32);

impl Sum {
    pub(super) fn new() -> Self {
        Self(0)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0 = crc32c::crc32c_append(self.0, bytes);
        self
    }

    pub(super) fn int(&mut self, value: i64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn option(&mut self, value: Option<i64>) -> &mut Self {
        match value {
            Some(value) => self.bytes(&[1]).int(value),
            None => self.bytes(&[0]),
        }
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.int(i64::try_from(text.len()).unwrap_or(i64::MAX)).bytes(text.as_bytes())
    }
}

/// An id as it is bound.
pub(super) fn blob(id: MessageId) -> Vec<u8> {
    id.0.as_bytes().to_vec()
}

/// One column; a value of another type is damage, not a reason to stop trying.
pub(super) fn get<'r, T>(row: &'r SqliteRow, column: usize, name: &'static str) -> Result<T, Fault>
where
    T: Decode<'r, Sqlite> + Type<Sqlite>,
{
    row.try_get(column).map_err(Fault::column(name))
}

pub(super) fn time(row: &SqliteRow, column: usize, name: &'static str) -> Result<Timestamp, Fault> {
    get(row, column, name).map(Timestamp::from_millis)
}

pub(super) fn optional_time(
    row: &SqliteRow,
    column: usize,
    name: &'static str,
) -> Result<Option<Timestamp>, Fault> {
    Ok(get::<Option<i64>>(row, column, name)?.map(Timestamp::from_millis))
}

pub(super) fn text(row: &SqliteRow, column: usize, name: &'static str) -> Result<Option<Arc<str>>, Fault> {
    Ok(get::<Option<&str>>(row, column, name)?.map(Arc::from))
}

pub(super) fn service(row: &SqliteRow, column: usize, name: &'static str) -> Result<ServiceName, Fault> {
    let text: &str = get(row, column, name)?;
    text.parse().map_err(|error| Fault::Corrupt(format!("column {name}: {text:?} {error}")))
}

pub(super) fn status(row: &SqliteRow, column: usize) -> Result<Status, Fault> {
    let text: &str = get(row, column, "status")?;
    text.parse().map_err(|error| Fault::Corrupt(format!("column status: {text:?} {error}")))
}

pub(super) fn priority(row: &SqliteRow, column: usize) -> Result<Priority, Fault> {
    let value: u8 = get(row, column, "priority")?;
    Priority::new(value).ok_or_else(|| Fault::Corrupt(format!("column priority: {value}")))
}

pub(super) fn message_id(bytes: &[u8]) -> Result<MessageId, Fault> {
    Uuid::from_slice(bytes)
        .map(MessageId)
        .map_err(|_| Fault::Corrupt(format!("an id of {} bytes", bytes.len())))
}
