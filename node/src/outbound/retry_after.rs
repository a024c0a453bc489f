//! `Retry-After`: seconds or an HTTP date (RFC 9110, 10.2.3).

use std::time::{Duration, UNIX_EPOCH};

use hub_core::time::Timestamp;

/// Stands for more seconds than fit: the retry policy's cap cuts it.
const FAR: u64 = 1 << 32;

/// How long to wait from `now`; `None` for what is neither seconds nor a date. A date that has passed means zero.
#[must_use]
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(FAR)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let at = i64::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()?;
    Some(Timestamp::from_millis(at).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_seconds_and_dates() {
        let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        let read = |text| retry_after(text, now);
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read(" 0 "), Some(Duration::ZERO));
        assert_eq!(read("Mon, 23 Nov 2026 10:00:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(read("Mon, 23 Nov 2026 09:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("99999999999999999999999"), Some(Duration::from_secs(FAR)));
        for bad in ["", "-5", "1.5", "soon", "Mon, 23 Nov"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
