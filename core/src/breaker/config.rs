//! When a breaker opens, and for how long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::FieldError;

/// The settings of one service's breaker. Rates are in thousandths, so that every node computes the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long it stays open the first time, in seconds, 1 to 3,600.
    pub reset_timeout_s: u32,
    /// So many failures one after the other make a node's verdict, 1 to 1,000.
    pub failure_threshold: u32,
    /// Seconds that rates are counted over, 10 to 600.
    pub window_s: u32,
    /// Rates mean something from so many calls on, 1 to 10,000.
    pub min_calls: u32,
    /// Failing calls among all calls of the window, in thousandths, 1 to 1,000.
    pub failure_permille: u16,
    /// A call that takes longer is slow, in milliseconds, 1 to 300,000; none is if `None`.
    pub slow_ms: Option<u32>,
    /// Slow calls among all calls of the window, in thousandths, 1 to 1,000.
    pub slow_permille: u16,
    /// Deliveries that must succeed before it closes, 1 to 100.
    pub success_threshold: u32,
    /// The longest it stays open, in seconds, from `reset_timeout_s` to 86,400.
    pub max_open_s: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            reset_timeout_s: 60,
            failure_threshold: 5,
            window_s: 30,
            min_calls: 20,
            failure_permille: 500,
            slow_ms: None,
            slow_permille: 800,
            success_threshold: 2,
            max_open_s: 900,
        }
    }
}

impl Config {
    /// The base open time.
    #[must_use]
    pub const fn reset_timeout(&self) -> Duration {
        Duration::from_secs(self.reset_timeout_s as u64)
    }

    /// How far back rates and votes reach.
    #[must_use]
    pub const fn window(&self) -> Duration {
        Duration::from_secs(self.window_s as u64)
    }

    /// The longest open time, without its spread.
    #[must_use]
    pub const fn max_open(&self) -> Duration {
        Duration::from_secs(self.max_open_s as u64)
    }

    /// Every field that is out of range.
    #[must_use]
    pub fn check(&self) -> Vec<FieldError> {
        let ranges = [
            ("/reset_timeout_s", self.reset_timeout_s, 1, 3_600),
            ("/failure_threshold", self.failure_threshold, 1, 1_000),
            ("/window_s", self.window_s, 10, 600),
            ("/min_calls", self.min_calls, 1, 10_000),
            ("/failure_permille", u32::from(self.failure_permille), 1, 1_000),
            ("/slow_ms", self.slow_ms.unwrap_or(1), 1, 300_000),
            ("/slow_permille", u32::from(self.slow_permille), 1, 1_000),
            ("/success_threshold", self.success_threshold, 1, 100),
            ("/max_open_s", self.max_open_s, self.reset_timeout_s.clamp(1, 3_600), 86_400),
        ];
        let out = ranges.into_iter().filter(|(_, value, least, most)| !(least..=most).contains(&value));
        out.map(|(field, _, least, most)| FieldError::invalid(field, format!("must be {least} to {most}")))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_every_field_has_its_range() {
        assert_eq!(Config::default().check(), []);
        let low = Config {
            reset_timeout_s: 0,
            failure_threshold: 0,
            window_s: 9,
            min_calls: 0,
            failure_permille: 0,
            slow_ms: Some(0),
            slow_permille: 0,
            success_threshold: 0,
            max_open_s: 0,
        };
        assert_eq!(low.check().len(), 9);
        let high = Config {
            reset_timeout_s: 3_601,
            failure_threshold: 1_001,
            window_s: 601,
            min_calls: 10_001,
            failure_permille: 1_001,
            slow_ms: Some(300_001),
            slow_permille: 1_001,
            success_threshold: 101,
            max_open_s: 86_401,
        };
        assert_eq!(high.check().len(), 9);
        let short = Config { reset_timeout_s: 61, max_open_s: 60, ..Config::default() };
        assert_eq!(short.check(), [FieldError::invalid("/max_open_s", "must be 61 to 86400")]);
    }
}
