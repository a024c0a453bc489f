//! Names of queues: `{prefix}.{service}` and `{prefix}.dlq.{service}`, and back.

use std::fmt;

use hub_core::id::ServiceName;
use serde::{Deserialize, Deserializer, Serialize};

/// What separates dead letters from the rest.
const DEAD: &str = "dlq.";
/// Put before a service's name that would read like a dead-letter queue. No name of a service has it.
const ESCAPE: char = '=';

/// The first part of the names of all queues of one hub: 1 to 64 characters `[A-Za-z0-9_-]`. It has no dot, so two hubs with
/// different prefixes never share a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Prefix(String);

/// A prefix was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 characters of a-z, A-Z, 0-9, '_' and '-'")]
pub struct PrefixError;

impl std::str::FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let fits = (1..=64).contains(&text.len());
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if fits && plain { Ok(Self(text.to_owned())) } else { Err(PrefixError) }
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("message-hub".to_owned())
    }
}

/// Which of a service's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// What is to be delivered.
    Work,
    /// A copy of what was given up.
    Dead,
}

impl Prefix {
    /// The name of a service's queue. Different services and kinds never share one.
    #[must_use]
    pub fn queue(&self, kind: Kind, service: &ServiceName) -> String {
        match kind {
            Kind::Dead => format!("{self}.{DEAD}{service}"),
            Kind::Work if service.as_str().starts_with(DEAD) => format!("{self}.{ESCAPE}{service}"),
            Kind::Work => format!("{self}.{service}"),
        }
    }

    /// Whose queue it is; `None` if it is none of this hub.
    #[must_use]
    pub fn owner(&self, queue: &str) -> Option<(Kind, ServiceName)> {
        let name = queue.strip_prefix(&self.0)?.strip_prefix('.')?;
        if let Some(service) = name.strip_prefix(DEAD) {
            return Some((Kind::Dead, service.parse().ok()?));
        }
        let service = name.strip_prefix(ESCAPE).filter(|rest| rest.starts_with(DEAD)).unwrap_or(name);
        Some((Kind::Work, service.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_queues_share_a_name() {
        let prefix: Prefix = "hub".parse().unwrap();
        let services = ["a", "dlq.a", "dlq.dlq.a", "dlq", "dlq.", "a.dlq", "a.b", "dlq-a"];
        let mut names = BTreeSet::new();
        for service in services {
            let service: ServiceName = service.parse().unwrap();
            for kind in [Kind::Work, Kind::Dead] {
                let queue = prefix.queue(kind, &service);
                assert_eq!(prefix.owner(&queue), Some((kind, service.clone())), "{queue}");
                assert!(names.insert(queue));
            }
        }
        assert_eq!(prefix.queue(Kind::Work, &"orders".parse().unwrap()), "hub.orders");
        assert_eq!(prefix.queue(Kind::Dead, &"orders".parse().unwrap()), "hub.dlq.orders");
    }

    #[test]
    fn what_is_not_ours_has_no_owner() {
        let prefix: Prefix = "hub".parse().unwrap();
        for queue in ["hub", "hub.", "hubs.a", "other.a", "hub.=", "hub.=a", "hub.dlq."] {
            assert_eq!(prefix.owner(queue), None, "{queue}");
        }
    }

    #[test]
    fn a_prefix_is_one_plain_word() {
        for bad in ["", "a.b", "a b", "ü", &"x".repeat(65)] {
            assert_eq!(bad.parse::<Prefix>(), Err(PrefixError), "{bad}");
        }
        assert!("Shop-1_hub".parse::<Prefix>().is_ok());
    }
}
