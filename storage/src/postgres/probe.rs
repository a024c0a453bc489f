//! Looks a database over without changing anything, as `message-hub doctor` does before a node needs it.

use std::time::Instant;

use hub_core::id::ServiceName;
use hub_core::time::Timestamp;
use secrecy::SecretString;
use sqlx::{Connection, PgConnection, Row};

use super::setup::{self, SetupError};

/// All that one look asks. A role that may use the owner's rights may do what the owner may.
const LOOK: &str = "SELECT current_setting('server_version') AS server, current_setting('server_version_num')::integer AS number, \
     has_schema_privilege(current_schema(), 'CREATE') AS may_create, \
     coalesce((SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('messages')), true) AS owns, \
     pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS read_only, \
     round(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS clock";

/// Services that messages were sent to, the busiest first.
const TARGETS: &str =
    "SELECT target FROM backlog GROUP BY target ORDER BY sum(accepted_total) DESC LIMIT 1000";

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The server's version, for people.
    pub server: String,
    /// It works, but a newer one is wished for.
    pub aged: bool,
    /// Migrations that a start, or `migrate`, would apply.
    pub missing: usize,
    /// The user may make tables in its schema.
    pub may_create: bool,
    /// The user owns the hub's tables, or there are none yet.
    pub owns: bool,
    /// It takes no writes.
    pub read_only: bool,
    /// What its clock shows.
    pub clock: Timestamp,
    /// Services that messages were sent to: at most a thousand, the busiest.
    pub targets: Vec<ServiceName>,
}

/// Connects and looks, until `deadline`.
///
/// # Errors
/// Why the database cannot be used.
pub async fn probe(url: &SecretString, deadline: Instant) -> Result<Report, SetupError> {
    let options = setup::parse(url)?;
    let place = format!("{}:{}", options.get_host(), options.get_port());
    let looked = tokio::time::timeout_at(deadline.into(), async {
        let connected = PgConnection::connect_with(&options).await;
        let mut connection = connected.map_err(|error| setup::not_connected(&place, &error))?;
        let report = look(&mut connection).await;
        // Whether the server heard the goodbye does not matter.
        drop(connection.close().await);
        report
    });
    looked.await.unwrap_or_else(|_| {
        Err(SetupError::Unreachable { place: place.clone(), reason: "no answer in time".to_owned() })
    })
}

async fn look(connection: &mut PgConnection) -> Result<Report, SetupError> {
    let row = sqlx::query(LOOK).fetch_one(&mut *connection).await.map_err(setup::failed)?;
    let server: String = row.try_get("server").map_err(setup::failed)?;
    let number: i32 = row.try_get("number").map_err(setup::failed)?;
    if number < setup::OLDEST {
        return Err(SetupError::TooOld { found: server });
    }
    let missing = setup::missing(connection).await?;
    // There are no such tables yet, or this user may not read them, which the rights tell.
    if let Err(half @ SetupError::HalfCopied) = setup::no_half_copy(connection).await {
        return Err(half);
    }
    let targets: Vec<String> =
        sqlx::query_scalar(TARGETS).fetch_all(&mut *connection).await.unwrap_or_default();
    Ok(Report {
        server,
        aged: number < setup::GOOD,
        missing,
        targets: targets.iter().filter_map(|target| target.parse().ok()).collect(),
        may_create: row.try_get("may_create").map_err(setup::failed)?,
        owns: row.try_get("owns").map_err(setup::failed)?,
        read_only: row.try_get("read_only").map_err(setup::failed)?,
        clock: Timestamp::from_millis(row.try_get("clock").map_err(setup::failed)?),
    })
}
