//! Who calls: bearer tokens (JWT), their keys, and the cache of those that were verified.

mod cache;
mod keys;
mod token;
mod verifier;

pub use keys::{KeyError, KeySet};
pub use token::{Grant, MIN_SECRET_BYTES, issue};
pub use verifier::{Requirements, TokenError, Verifier};

use std::collections::BTreeSet;
use std::sync::Arc;

use hub_core::access::{Principal, Scope};

/// How callers are known.
#[derive(Clone, Debug)]
pub enum Access {
    /// By their token.
    Tokens(Arc<Verifier>),
    /// Not at all: whoever calls may do everything.
    Open(Arc<Principal>),
}

impl Access {
    /// Everyone may do everything (`--no-auth`).
    #[must_use]
    pub fn open() -> Self {
        Self::Open(Arc::new(Principal {
            subject: "anonymous".to_owned(),
            service: None,
            scopes: BTreeSet::from(Scope::ALL),
        }))
    }
}

/// Chooses the one crypto library for tokens. Safe to call more than once.
pub fn install_crypto() {
    // An error only says that a provider is installed already; this build has but one.
    let _already = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}
