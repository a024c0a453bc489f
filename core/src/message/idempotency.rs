//! Idempotency keys: a caller's own name for a request, so that its repeats are recognised for 24 hours.

use serde::{Deserialize, Serialize};

/// Hash of a request's body: the first 16 bytes of its SHA-256. The edge computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub [u8; 16]);

/// A caller's key with the body it stands for. Scope: caller and key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IdempotencyKey {
    /// The token's subject.
    pub caller: String,
    /// 1 to 255 characters (a batch adds `#i`).
    pub key: String,
    /// What the key stood for when it was first used.
    pub fingerprint: Fingerprint,
}
