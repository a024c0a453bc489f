//! Takes in a copy of an embedded store. What is written and how far it came are one transaction; while the copy is not
//! finished no hub works with the database.

mod columns;
mod found;
mod write;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hub_core::port::Clock;
use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use super::fault::{Fault, command, within};
use super::setup::{self, SetupError};
use crate::copy::{Done, Origin};

pub use found::Standing;

/// Other than that of hubs, which are counted by theirs.
const SESSION_NAME: &str = "message-hub-store-copy";
const SESSION: &str = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = '5min'; \
     SET client_min_messages = warning; SET timezone = 'UTC'; \
     SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// How long connecting, one part of the copy, and the migrations with the closing counts may take.
const CONNECT: Duration = Duration::from_secs(10);
const PART: Duration = Duration::from_secs(120);
const WHOLE: Duration = Duration::from_secs(3_600);

const HUBS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
     AND pid <> pg_backend_pid() AND application_name = 'message-hub'";
const BEGIN: &str = "INSERT INTO store_copy (cluster, node, entry) VALUES ($1, $2, $3)";
/// Until this session ends.
const ALONE: &str = "SELECT pg_try_advisory_lock(4854, 3)";
const ONLY_THE_COPY: &str = "SELECT count(*) = (SELECT messages FROM store_copy) FROM messages";
const FINISH: &str = "UPDATE store_copy SET finished_at = coalesce(finished_at, hub_now()) \
     WHERE cluster = $1 AND node = $2 AND entry = $3 AND copied_at IS NOT NULL";
const WIPE: &str = "TRUNCATE messages, attempts, deliveries, endings, idempotency, backlog, store_copy";

/// Why a database does not take in a copy.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The database cannot be used at all.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// What is in it does not let this copy begin or go on.
    #[error("{0}")]
    Refused(Standing),
    /// Hubs are connected to it.
    #[error("hubs work with the database: {0} connections of theirs are open")]
    InUse(i64),
    /// Writing failed. What was written before stays.
    #[error("the database failed: {0}")]
    Interrupted(String),
    /// What was written is not what was to be written.
    #[error("the copy is not what it should be: {0}")]
    Wrong(String),
}

impl From<Fault> for ImportError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Corrupt(reason) => Self::Wrong(reason),
            other => Self::Interrupted(other.to_string()),
        }
    }
}

/// A database that takes in a copy.
pub struct Import {
    connection: PgConnection,
    clock: Arc<dyn Clock>,
    origin: Origin,
    done: Done,
    days: write::Days,
}

impl Import {
    /// How the database stands to a copy of `origin`. Changes nothing.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn look(
        url: &SecretString,
        origin: Origin,
        clock: &dyn Clock,
    ) -> Result<Standing, ImportError> {
        let mut connection = connect(url, clock).await?;
        let deadline = clock.instant() + PART;
        timed(clock.instant() + PART, setup::missing(&mut connection)).await?;
        let standing = found::standing(&mut connection, origin, deadline).await?;
        if !matches!(standing, Standing::Finished(_)) {
            nobody_works(&mut connection, deadline).await?;
        }
        drop(connection.close().await);
        Ok(standing)
    }

    /// Brings the database up to date and begins a copy, or goes on with it. With `start_over`, what an unfinished copy has
    /// put there is thrown away first.
    ///
    /// # Errors
    /// The database cannot be used, holds something else, or hubs work with it.
    pub async fn begin(
        url: &SecretString,
        origin: Origin,
        clock: Arc<dyn Clock>,
        start_over: bool,
    ) -> Result<(Self, Standing), ImportError> {
        let mut connection = connect(url, &*clock).await?;
        timed(clock.instant() + WHOLE, setup::bring_up_to_date(&mut connection)).await?;
        let deadline = clock.instant() + PART;
        command(&mut connection, "setting up the session", deadline, SESSION).await?;
        let alone = sqlx::query_scalar(ALONE).fetch_one(&mut connection);
        if !within("looking for other copies", deadline, alone).await? {
            return Err(ImportError::Wrong("another process copies into the same database".to_owned()));
        }
        let during = "beginning the copy";
        command(&mut connection, during, deadline, "BEGIN").await?;
        command(&mut connection, during, deadline, "LOCK TABLE store_copy IN EXCLUSIVE MODE").await?;
        let mut standing = found::standing(&mut connection, origin, deadline).await?;
        if !matches!(standing, Standing::Finished(_)) {
            nobody_works(&mut connection, deadline).await?;
            if start_over && standing.is_unfinished() {
                let alone = sqlx::query_scalar(ONLY_THE_COPY).fetch_one(&mut connection);
                if !within("counting what would be thrown away", clock.instant() + WHOLE, alone).await? {
                    return Err(ImportError::Refused(Standing::Occupied));
                }
                command(&mut connection, "starting over", deadline, WIPE).await?;
                standing = Standing::Empty;
            }
        }
        let done = match standing {
            Standing::Empty => {
                let begin = sqlx::query(BEGIN)
                    .bind(found::cluster_text(origin.cluster))
                    .bind(origin.node.cast_signed())
                    .bind(origin.entry.cast_signed());
                within(during, deadline, begin.execute(&mut connection)).await?;
                Done::default()
            }
            Standing::Part(done) | Standing::Finished(done) => done,
            other => return Err(ImportError::Refused(other)),
        };
        command(&mut connection, during, deadline, "COMMIT").await?;
        // A hub that connected before that was written does not know of it; one that connects from now on finds it.
        if standing == Standing::Empty
            && let Err(error) = nobody_works(&mut connection, deadline).await
        {
            command(&mut connection, "taking back the beginning", deadline, "DELETE FROM store_copy").await?;
            return Err(error);
        }
        Ok((Self { connection, clock, origin, done, days: write::Days::default() }, standing))
    }

    /// How far it is.
    #[must_use]
    pub const fn done(&self) -> Done {
        self.done
    }

    /// Lets hubs use the database. Call it when the source can no longer be started on its own copy.
    ///
    /// # Errors
    /// The database failed. It may be called again.
    pub async fn finish(mut self) -> Result<(), ImportError> {
        let deadline = self.clock.instant() + PART;
        let finish = sqlx::query(FINISH)
            .bind(found::cluster_text(self.origin.cluster))
            .bind(self.origin.node.cast_signed())
            .bind(self.origin.entry.cast_signed());
        let finished = within("finishing the copy", deadline, finish.execute(&mut self.connection)).await?;
        if finished.rows_affected() != 1 {
            return Err(ImportError::Wrong("the copy is not in the database any more".to_owned()));
        }
        drop(self.connection.close().await);
        Ok(())
    }
}

/// No hub is connected.
async fn nobody_works(connection: &mut PgConnection, deadline: Instant) -> Result<(), ImportError> {
    let hubs = sqlx::query_scalar(HUBS).fetch_one(connection);
    match within("looking for hubs", deadline, hubs).await? {
        0_i64 => Ok(()),
        hubs => Err(ImportError::InUse(hubs)),
    }
}

async fn connect(url: &SecretString, clock: &dyn Clock) -> Result<PgConnection, ImportError> {
    let options: PgConnectOptions = setup::parse(url)?.application_name(SESSION_NAME);
    let place = format!("{}:{}", options.get_host(), options.get_port());
    let connected =
        tokio::time::timeout_at((clock.instant() + CONNECT).into(), setup::connect(&options, &place));
    match connected.await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(SetupError::Unreachable { place, reason: "no answer in time".to_owned() }.into()),
    }
}

async fn timed<T>(
    deadline: Instant,
    work: impl Future<Output = Result<T, SetupError>>,
) -> Result<T, SetupError> {
    let late = |_| Err(SetupError::Failed("no answer in time".to_owned()));
    tokio::time::timeout_at(deadline.into(), work).await.unwrap_or_else(late)
}
