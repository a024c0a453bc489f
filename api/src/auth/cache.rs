//! Tokens that were verified: a caller sends the same one thousands of times.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest;
use hub_core::access::Principal;

/// The hash of a token: the cache holds no token.
pub(super) type TokenHash = [u8; 32];

/// Most tokens that are remembered.
const CAPACITY: usize = 4_096;

/// A verified token.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    /// Whose it is.
    pub(super) principal: Arc<Principal>,
    /// Valid from this moment, in milliseconds since the epoch; leeway included.
    pub(super) from_ms: i64,
    /// Valid before this moment, in milliseconds since the epoch; leeway included.
    pub(super) until_ms: i64,
}

/// A bounded map of verified tokens.
#[derive(Debug, Default)]
pub(super) struct Cache {
    tokens: Mutex<HashMap<TokenHash, Verified>>,
}

pub(super) fn hash(token: &str) -> TokenHash {
    let mut out = TokenHash::default();
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    out.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    out
}

impl Cache {
    pub(super) fn get(&self, token: &TokenHash) -> Option<Verified> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }

    pub(super) fn put(&self, token: TokenHash, verified: Verified, now_ms: i64) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= CAPACITY {
            tokens.retain(|_, kept| kept.until_ms > now_ms);
            if tokens.len() >= CAPACITY {
                tokens.clear();
            }
        }
        tokens.insert(token, verified);
    }

    pub(super) fn clear(&self) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
