//! Redis.

use std::time::Duration;

use hub_storage::redis::probe;

use super::Finding;
use crate::clock::HubClock;
use crate::config::Config;
use crate::wiring::cache::options;

const PART: &str = "redis";
/// How long it may take to answer everything.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn examine(config: &Config) -> Option<Finding> {
    // Which cluster this will be is not known yet; its keys are of the same kind.
    let options = match options(config, 0) {
        Ok(options) => options?,
        Err(error) => return Some(Finding::failing(PART, error.code, error.detail)),
    };
    Some(match probe(&options, &HubClock::default(), LIMIT).await {
        Ok(report) => {
            let version = report.version.map(|version| format!(" {version}")).unwrap_or_default();
            let micros = report.round_trip.as_micros();
            Finding::ok(PART, format!("Redis{version} decides within {micros} µs"))
        }
        Err(fault) => {
            let cure = "Mend it at leisure: until then each node limits rates by itself, to its share.";
            Finding::degraded(PART, format!("{}: {fault}", options.endpoint), cure)
        }
    })
}
