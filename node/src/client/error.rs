//! How a call can fail.

use super::Problem;
use super::source::NoRandomness;

/// A call that brought no 2xx.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address is not one of a hub.
    #[error("{url}: {reason}")]
    Address {
        /// The address as it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The node refused; nothing was done.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// The request left, and no node said what became of it.
    #[error("the outcome is unknown: {last}\n  ask again with the same key: --idempotency-key {key}")]
    Unknown {
        /// The last thing heard.
        last: String,
        /// The key of the request.
        key: String,
    },
    /// No node answered.
    #[error("HUB-3002: no node answered: {last}")]
    Unreachable {
        /// The last failure.
        last: String,
    },
    /// A 2xx answer that cannot be read.
    #[error("the answer cannot be read")]
    Answer {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The request cannot be written.
    #[error("the request is not valid")]
    Request {
        /// Why.
        #[source]
        source: hyper::http::Error,
    },
    /// The encryption library offers nothing usable.
    #[error("encryption is not available")]
    Tls {
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// No key could be made.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

impl Error {
    /// The node's own words, if it refused.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }
}
