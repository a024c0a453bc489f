//! PostgreSQL, and how far this machine's clock is from the server's.

use std::time::Duration;

use hub_core::error::code;
use hub_core::id::ServiceName;
use hub_core::time::Timestamp;
use hub_storage::postgres::{Report, probe};

use super::Finding;
use crate::clock::{Machine as _, SystemMachine};
use crate::config::Config;
use crate::database::{code_of, url_of};

const PART: &str = "postgres";
/// How long the server may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Clocks may differ this much.
const CLOCK_OFF: Duration = Duration::from_secs(5);

/// What is found, and the services that messages were sent to.
pub(super) async fn examine(config: &Config) -> (Vec<Finding>, Vec<ServiceName>) {
    let Some(url) = &config.postgres.url else { return (Vec::new(), Vec::new()) };
    let before = SystemMachine.wall();
    match probe(&url_of(url), SystemMachine.instant() + ANSWER).await {
        Err(error) => (vec![Finding::failing(PART, code_of(&error), error)], Vec::new()),
        Ok(report) => {
            let clock = clock(report.clock, before, SystemMachine.wall());
            (vec![server(&report), rights(&report), migrations(&report), clock], report.targets)
        }
    }
}

fn server(report: &Report) -> Finding {
    let found = format!("PostgreSQL {} answers", report.server);
    if report.read_only {
        let found = format!("{found}, but takes no writes: it is a standby, or was made read-only");
        return Finding::failing(PART, code::DATABASE_SILENT, found);
    }
    if report.aged {
        return Finding::degraded(PART, found, "upgrade the server: 15 or newer is recommended");
    }
    Finding::ok(PART, found)
}

fn rights(report: &Report) -> Finding {
    match (report.may_create, report.owns) {
        (true, true) => Finding::ok(PART, "the user has the rights that the hub needs"),
        (false, _) => {
            Finding::failing(PART, code::DATABASE_RIGHTS, "the user may not make tables in its schema")
        }
        (true, false) => {
            Finding::failing(PART, code::DATABASE_RIGHTS, "the user does not own the hub's tables")
        }
    }
}

fn migrations(report: &Report) -> Finding {
    match report.missing {
        0 => Finding::ok(PART, "the tables are up to date"),
        missing => Finding::degraded(
            PART,
            format!("{missing} migrations are missing"),
            "a node applies them at its start; or run `message-hub migrate`",
        ),
    }
}

/// The server looked at its clock between `before` and `after`.
fn clock(server: Timestamp, before: Timestamp, after: Timestamp) -> Finding {
    let off = server.since(after).max(before.since(server));
    let found = format!("this machine's is at most {} ms from PostgreSQL's", off.as_millis());
    if off > CLOCK_OFF { Finding::failing("clock", code::CLOCK, found) } else { Finding::ok("clock", found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_around_the_question() {
        let at = Timestamp::from_millis;
        assert!(!clock(at(10_000), at(9_000), at(11_000)).is_failing());
        assert!(!clock(at(14_000), at(9_000), at(10_000)).is_failing());
        assert!(clock(at(16_000), at(9_000), at(10_000)).is_failing(), "the server's is ahead");
        assert!(clock(at(3_000), at(9_000), at(10_000)).is_failing(), "the server's is behind");
    }
}
