//! Identifiers: of nodes, messages, requests, services and instances.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::hash::StableHash;

/// A node of the cluster. Allocated from a log index, never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A message: a UUIDv7 (RFC 9562), so that ids sort by the time of acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(pub Uuid);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for MessageId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// One request of a caller, kept over its repeats, so that a repeat is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub Uuid);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not 1 to 100 characters of `[a-z0-9][a-z0-9._-]*`.
    #[error("must be 1 to 100 characters of a-z, 0-9, '.', '_' and '-', and start with a letter or digit")]
    Shape,
    /// `register`, `health` and `watch` are paths of the interface.
    #[error("is a reserved word")]
    Reserved,
}

/// Names that are paths of the interface and cannot be services.
pub const RESERVED_NAMES: [&str; 3] = ["register", "health", "watch"];

fn check_name(text: &str) -> Result<(), NameError> {
    let head = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let tail =
        text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'));
    if head && tail && text.len() <= 100 { Ok(()) } else { Err(NameError::Shape) }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<(), NameError> = $check;
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// A service: 1-100 characters `[a-z0-9][a-z0-9._-]*`, and no reserved word.
    ServiceName,
    |text| {
        check_name(text)?;
        if RESERVED_NAMES.contains(&text) { Err(NameError::Reserved) } else { Ok(()) }
    }
);
name!(
    /// An instance of a service: 1-100 characters `[a-z0-9][a-z0-9._-]*`, unique within its service.
    InstanceId,
    check_name
);

impl InstanceId {
    /// The id of an instance that was registered without one: the same for the same URL (in its normal form), so that
    /// registering again is the same instance again.
    #[must_use]
    pub fn of_url(url: &str) -> Self {
        Self(format!("i-{:016x}", StableHash::default().text(url).finish()).into())
    }
}
