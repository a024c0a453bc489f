//! Moments and spans of time as arguments.

use std::time::Duration;

use hub_core::time::Timestamp;

/// An RFC 3339 moment.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "is no RFC 3339 time such as 2026-11-23T09:00:00Z".to_owned())
}

/// A span in whole seconds: `90s`, `15m`, `2h 30m`, `7d`.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let span = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if span != Duration::from_secs(span.as_secs()) {
        return Err("must be whole seconds".to_owned());
    }
    Ok(span.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        assert_eq!(seconds("2h 30m"), Ok(9000));
        assert!(seconds("1500ms").is_err());
        assert!(moment("2026-11-23T09:00:00Z").is_ok());
        assert!(moment("tomorrow").unwrap_err().contains("RFC 3339"));
    }
}
