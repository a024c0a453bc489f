//! Bringing a database up to date, and saying plainly why it cannot be used.

use std::str::FromStr;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::copy::Origin;

/// Every migration that this version knows.
static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/postgres");

/// The oldest server that will do, and the oldest that is not warned of.
pub(super) const OLDEST: i32 = 130_000;
pub(super) const GOOD: i32 = 150_000;

/// Partitions are made for this many days ahead.
pub(super) const DAYS_AHEAD: i32 = 7;

/// Makes the partitions of today and of the days ahead.
pub(super) const MAKE_AHEAD: &str =
    "SELECT hub_make_partitions(hub_now(), hub_now() + $1 * interval '1 day')";

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The URL makes no sense. (It may hold a password, so it is not repeated.)
    #[error("DATABASE_URL is not a Postgres URL: {0}")]
    Url(String),
    /// Nobody answers there. It may yet.
    #[error("Postgres at {place} does not answer: {reason}")]
    Unreachable {
        /// Host and port.
        place: String,
        /// Why.
        reason: String,
    },
    /// User, password or database name is wrong.
    #[error("Postgres at {place} refuses the login: {reason}")]
    Login {
        /// Host and port.
        place: String,
        /// The server's words.
        reason: String,
    },
    /// The server is older than 13.
    #[error("Postgres {found} is too old: 13 or newer is needed")]
    TooOld {
        /// Its version.
        found: String,
    },
    /// A newer hub migrated the database.
    #[error(
        "the database was migrated by a newer version: it has migration {found}, this version knows up to {known}"
    )]
    Newer {
        /// The migration that is not known here.
        found: i64,
        /// The last one that is.
        known: i64,
    },
    /// A migration that is known here was applied in another form, or only half.
    #[error("the database's tables are not those of this version: {0}")]
    Foreign(String),
    /// An embedded store is being copied into it, or that copy was given up.
    #[error("a copy of an embedded store into the database is not finished")]
    HalfCopied,
    /// The role may not do what is needed.
    #[error("a right is missing in the database: {0}")]
    Denied(String),
    /// Anything else. It may pass.
    #[error("the database could not be brought up to date: {0}")]
    Failed(String),
}

impl SetupError {
    /// Trying again changes nothing: the configuration or the database has to be changed.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::Unreachable { .. } | Self::Failed(_))
    }
}

/// What was found, and done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The server's version, for people.
    pub server: String,
    /// The server works, but a newer one is wished for.
    pub aged: bool,
    /// Migrations that were applied now.
    pub applied: usize,
    /// Whose messages were copied into it by `store copy`, if that is how it began.
    pub copy: Option<Origin>,
}

/// The URL, read; the password stays inside.
pub(super) fn parse(url: &SecretString) -> Result<PgConnectOptions, SetupError> {
    let text = url.expose_secret();
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err(SetupError::Url("it must begin with postgres://".to_owned()));
    }
    let options = PgConnectOptions::from_str(text).map_err(|error| SetupError::Url(error.to_string()))?;
    // What statements do is said by those who send them.
    Ok(options.application_name("message-hub").disable_statement_logging())
}

/// Connects, checks the server, applies the migrations that are missing (one hub at a time, under an advisory lock) and makes
/// the partitions of the coming days. A database that is up to date is not written to, so this also works on a server that is
/// read-only at the moment.
///
/// # Errors
/// See [`SetupError`]; after one that [is not final](SetupError::is_final) it may be called again.
pub async fn prepare(url: &SecretString, deadline: Instant) -> Result<Prepared, SetupError> {
    let options = parse(url)?;
    let place = format!("{}:{}", options.get_host(), options.get_port());
    let work = async {
        let mut connection = connect(&options, &place).await?;
        let prepared = bring_up_to_date(&mut connection).await?;
        no_half_copy(&mut connection).await?;
        let copy = copied_here(&mut connection).await?;
        Ok(Prepared { copy, ..prepared })
    };
    tokio::time::timeout_at(deadline.into(), work).await.unwrap_or_else(|_| {
        Err(SetupError::Unreachable { place: place.clone(), reason: "no answer in time".to_owned() })
    })
}

/// A connection for the setup.
pub(super) async fn connect(options: &PgConnectOptions, place: &str) -> Result<PgConnection, SetupError> {
    PgConnection::connect_with(options).await.map_err(|error| not_connected(place, &error))
}

/// [`prepare`], on a connection that is there.
pub(super) async fn bring_up_to_date(connection: &mut PgConnection) -> Result<Prepared, SetupError> {
    let number: String = sqlx::query_scalar("SELECT current_setting('server_version_num')")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let server: String = sqlx::query_scalar("SELECT current_setting('server_version')")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let number: i32 = number.parse().unwrap_or(0);
    if number < OLDEST {
        return Err(SetupError::TooOld { found: server });
    }
    let applied = migrate(connection).await?;
    // Without a partition for today nothing is accepted; a server that is read-only now makes it when it writes again.
    let made = sqlx::query(MAKE_AHEAD).bind(DAYS_AHEAD).execute(connection).await;
    match made.map_err(failed) {
        Ok(_) => {}
        Err(error @ SetupError::Denied(_)) => return Err(error),
        Err(error) => tracing::warn!(%error, "partitions could not be made yet"),
    }
    let aged = number < GOOD;
    if aged {
        tracing::warn!(%server, "Postgres 15 or newer is recommended");
    }
    Ok(Prepared { server, aged, applied, copy: None })
}

/// A hub must not take or deliver anything beside a copy that is not finished: the rest of it would come later.
pub(super) async fn no_half_copy(connection: &mut PgConnection) -> Result<(), SetupError> {
    if is_half_copied(connection).await.map_err(failed)? { Err(SetupError::HalfCopied) } else { Ok(()) }
}

/// Whether the database holds a copy that is not finished. One without tables holds none.
pub(super) async fn is_half_copied(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let half = "SELECT EXISTS (SELECT 1 FROM store_copy WHERE finished_at IS NULL)";
    match sqlx::query_scalar(half).fetch_one(connection).await {
        Err(error)
            if error.as_database_error().and_then(|error| error.code()).as_deref() == Some("42P01") =>
        {
            Ok(false)
        }
        found => found,
    }
}

/// The finished copy.
async fn copied_here(connection: &mut PgConnection) -> Result<Option<Origin>, SetupError> {
    let copy = "SELECT cluster, node, entry FROM store_copy WHERE finished_at IS NOT NULL";
    let copy: Option<(String, i64, i64)> =
        sqlx::query_as(copy).fetch_optional(connection).await.map_err(failed)?;
    copy.map(|(cluster, node, entry)| {
        let cluster = u128::from_str_radix(&cluster, 16)
            .map_err(|_| SetupError::Foreign(format!("store_copy.cluster is {cluster:?}")))?;
        Ok(Origin { cluster, node: node.cast_unsigned(), entry: entry.cast_unsigned() })
    })
    .transpose()
}

async fn migrate(connection: &mut PgConnection) -> Result<usize, SetupError> {
    let missing = missing(connection).await?;
    if missing > 0 {
        let known = last_known();
        MIGRATIONS.run_direct(None, connection, false).await.map_err(|error| not_migrated(error, known))?;
    }
    Ok(missing)
}

fn last_known() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// How many migrations the database lacks.
pub(super) async fn missing(connection: &mut PgConnection) -> Result<usize, SetupError> {
    let before = applied(connection).await?;
    if let Some(found) = before.iter().copied().find(|version| !MIGRATIONS.version_exists(*version)) {
        return Err(SetupError::Newer { found, known: last_known() });
    }
    Ok(MIGRATIONS.iter().filter(|migration| !before.contains(&migration.version)).count())
}

/// Versions of the migrations that the database has.
async fn applied(connection: &mut PgConnection) -> Result<Vec<i64>, SetupError> {
    let there: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    if !there {
        return Ok(Vec::new());
    }
    sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version")
        .fetch_all(connection)
        .await
        .map_err(failed)
}

pub(super) fn not_connected(place: &str, error: &sqlx::Error) -> SetupError {
    let place = place.to_owned();
    let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
    let reason = error.to_string();
    if code.starts_with("28") || code.starts_with("3D") {
        return SetupError::Login { place, reason };
    }
    SetupError::Unreachable { place, reason }
}

pub(super) fn failed(error: sqlx::Error) -> SetupError {
    let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
    if code == "42501" {
        SetupError::Denied(error.to_string())
    } else {
        SetupError::Failed(error.to_string())
    }
}

fn not_migrated(error: MigrateError, known: i64) -> SetupError {
    match error {
        MigrateError::VersionMissing(found) => SetupError::Newer { found, known },
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => failed(error),
        other @ (MigrateError::VersionMismatch(_) | MigrateError::Dirty(_)) => {
            SetupError::Foreign(other.to_string())
        }
        other => SetupError::Failed(other.to_string()),
    }
}

/// A deadline for work that has none of its own.
pub(super) fn soon(now: Instant) -> Instant {
    now + Duration::from_secs(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_is_none_is_refused_without_its_password() {
        for text in ["mysql://u:secret@h/d", "postgres://u:secret@h:notaport/d", "secret"] {
            let error = parse(&SecretString::from(text)).unwrap_err();
            assert!(matches!(error, SetupError::Url(_)), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
            assert!(error.is_final());
        }
        parse(&SecretString::from("postgresql://hub@localhost:5433/hub")).unwrap();
    }
}
