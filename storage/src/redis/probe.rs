//! Looks a Redis over, as `message-hub doctor` does before a node needs it.

use std::time::Duration;

use hub_core::port::Clock;
use hub_core::time::Timestamp;

use super::fault::Fault;
use super::link::{Link, client};
use super::options::Options;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The server's version, if its user may ask for it.
    pub version: Option<String>,
    /// What happens when its memory is full (`maxmemory-policy`), if its user may ask for it.
    pub eviction: Option<String>,
    /// What its clock shows. It may differ from the cluster's: rates are counted on this one alone.
    pub clock: Timestamp,
    /// How long one decision took.
    pub round_trip: Duration,
}

/// Connects, tries everything that a node does, and looks at the server. Waits at most `limit`.
///
/// # Errors
/// What is in the way, with its cure.
pub async fn probe(options: &Options, clock: &dyn Clock, limit: Duration) -> Result<Report, Fault> {
    match tokio::time::timeout(limit, look(options, clock, limit)).await {
        Ok(found) => found,
        Err(_) => Err(Fault::Slow(limit)),
    }
}

async fn look(options: &Options, clock: &dyn Clock, limit: Duration) -> Result<Report, Fault> {
    let link = Link::new(options)?;
    // The first decision also connects and loads the script.
    link.prove(limit).await?;
    let started = clock.instant();
    link.prove(limit).await?;
    let round_trip = clock.instant().saturating_duration_since(started);
    let mut connection = client(options)?.get_multiplexed_async_connection().await?;
    let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut connection).await?;
    // What the user may not see is left out: nothing depends on it.
    let info: String = redis::cmd("INFO").query_async(&mut connection).await.unwrap_or_default();
    Ok(Report {
        version: field(&info, "valkey_version").or_else(|| field(&info, "redis_version")),
        eviction: field(&info, "maxmemory_policy"),
        clock: Timestamp::from_millis(seconds.saturating_mul(1_000).saturating_add(micros / 1_000)),
        round_trip,
    })
}

/// A line `name:value` of the server's description of itself.
fn field(info: &str, name: &str) -> Option<String> {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}
