//! What a database holds, as far as a copy into it is concerned.

use std::fmt;
use std::time::Instant;

use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use crate::copy::{Done, Origin};
use crate::postgres::fault::{Fault, within};
use crate::postgres::row;

const COPY: &str = "SELECT cluster, node, entry, seq, keys_seen, messages, open, dead_letters, attempts, keys, \
     finished_at IS NOT NULL FROM store_copy";
const HOLDS: &str = "SELECT EXISTS (SELECT 1 FROM messages) OR EXISTS (SELECT 1 FROM idempotency)";

/// How a database stands to a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds no messages.
    Empty,
    /// It holds a part of this copy, perhaps all of it.
    Part(Done),
    /// It holds this copy, and hubs may use it, or do already.
    Finished(Done),
    /// It holds messages that no copy brought.
    Occupied,
    /// It holds a part of a copy of the same node, from before the node applied more.
    Outdated(Origin),
    /// It holds a part of a copy of another node.
    Foreign(Origin),
    /// It holds a finished copy of another node, or of this one at another time.
    Other(Origin),
}

impl Standing {
    /// It holds nothing but a copy that was not finished.
    pub(super) const fn is_unfinished(&self) -> bool {
        matches!(self, Self::Part(_) | Self::Outdated(_) | Self::Foreign(_))
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the database holds no messages"),
            Self::Part(_) => f.write_str("the database holds a part of this copy"),
            Self::Finished(_) => f.write_str("the database holds this copy"),
            Self::Occupied => f.write_str("the database holds messages that this copy did not bring"),
            Self::Outdated(origin) => write!(
                f,
                "the database holds a part of an earlier copy of this node, up to entry {}: the node has run since",
                origin.entry
            ),
            Self::Foreign(origin) => {
                write!(f, "the database holds a part of a copy of {}", Name(*origin))
            }
            Self::Other(origin) => write!(f, "the database holds a finished copy of {}", Name(*origin)),
        }
    }
}

struct Name(Origin);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { cluster, node, entry } = self.0;
        write!(f, "node {node} of cluster {cluster:032x}, up to entry {entry}")
    }
}

/// As it is stored.
pub(super) fn cluster_text(cluster: u128) -> String {
    format!("{cluster:032x}")
}

/// How it stands. A database of an earlier version may lack the table of copies, or all tables.
pub(super) async fn standing(
    connection: &mut PgConnection,
    origin: Origin,
    deadline: Instant,
) -> Result<Standing, Fault> {
    let during = "looking at what the database holds";
    let there =
        sqlx::query_as("SELECT to_regclass('store_copy') IS NOT NULL, to_regclass('messages') IS NOT NULL");
    let (copies, messages): (bool, bool) =
        within(during, deadline, there.fetch_one(&mut *connection)).await?;
    if !messages {
        return Ok(Standing::Empty);
    }
    if copies {
        let rows = within(during, deadline, sqlx::query(COPY).fetch_all(&mut *connection)).await?;
        if let Some(found) = rows.first() {
            return read(found, origin);
        }
    }
    let holds = sqlx::query_scalar(HOLDS).fetch_one(connection);
    let holds: bool = within(during, deadline, holds).await?;
    Ok(if holds { Standing::Occupied } else { Standing::Empty })
}

fn read(found: &PgRow, origin: Origin) -> Result<Standing, Fault> {
    let cluster: &str = row::get(found, 0)?;
    let cluster = u128::from_str_radix(cluster, 16)
        .map_err(|_| Fault::Corrupt(format!("column cluster: {cluster:?}")))?;
    let count = |column| row::get::<i64>(found, column).map(i64::cast_unsigned);
    let of = Origin { cluster, node: count(1)?, entry: count(2)? };
    let done = Done {
        seq: row::get(found, 3)?,
        keys_seen: count(4)?,
        messages: count(5)?,
        open: count(6)?,
        dead_letters: count(7)?,
        attempts: count(8)?,
        keys: count(9)?,
    };
    let finished: bool = row::get(found, 10)?;
    let same_node = (of.cluster, of.node) == (origin.cluster, origin.node);
    Ok(match (of == origin, finished) {
        (true, true) => Standing::Finished(done),
        (true, false) => Standing::Part(done),
        (false, true) => Standing::Other(of),
        (false, false) if same_node => Standing::Outdated(of),
        (false, false) => Standing::Foreign(of),
    })
}
