//! From a token to the caller it stands for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hub_core::access::Principal;
use hub_core::time::Timestamp;

use super::cache::{Cache, Verified, hash};
use super::keys::KeySet;
use super::token::Claims;

/// How far clocks may differ.
const LEEWAY: Duration = Duration::from_secs(5);

/// The longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 8_192;

/// The longest subject, in characters.
const MAX_SUBJECT: usize = 255;

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no JWT, or its header or claims cannot be read.
    #[error("token cannot be read")]
    Malformed,
    /// No key fits its `alg` and `kid`.
    #[error("no key for the token's alg and kid")]
    NoKey,
    /// The signature is wrong.
    #[error("signature does not fit")]
    Signature,
    /// `sub` is missing, empty or too long.
    #[error("token has no usable sub")]
    Subject,
    /// `exp` is missing.
    #[error("token has no exp")]
    NoExpiry,
    /// `aud` is not what the cluster demands.
    #[error("token is for another audience")]
    Audience,
    /// `iss` is not what the cluster demands.
    #[error("token is from another issuer")]
    Issuer,
    /// `exp` has passed.
    #[error("token has expired")]
    Expired,
    /// `nbf` has not come.
    #[error("token is not valid yet")]
    NotYet,
}

/// What every token must say besides.
#[derive(Clone, Debug, Default)]
pub struct Requirements {
    /// Its `aud`.
    pub audience: Option<String>,
    /// Its `iss`.
    pub issuer: Option<String>,
}

/// Verifies tokens. Keys can be changed while it works.
#[derive(Debug)]
pub struct Verifier {
    keys: Mutex<Arc<KeySet>>,
    requirements: Requirements,
    cache: Cache,
    missed: AtomicBool,
}

impl Verifier {
    /// A verifier with its first keys.
    #[must_use]
    pub fn new(keys: KeySet, requirements: Requirements) -> Self {
        super::install_crypto();
        Self {
            keys: Mutex::new(Arc::new(keys)),
            requirements,
            cache: Cache::default(),
            missed: AtomicBool::new(false),
        }
    }

    /// Takes new keys: from now on only tokens signed with these are good.
    pub fn set_keys(&self, keys: KeySet) {
        let mut current = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(keys);
        self.cache.clear();
    }

    /// Whether a token named a key that is not there, since this was asked last: its issuer may have a new one.
    pub fn take_missed(&self) -> bool {
        self.missed.swap(false, Ordering::Relaxed)
    }

    /// Whose token it is at `now`.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Principal>, TokenError> {
        let now_ms = now.as_millis();
        let hash = hash(token);
        if let Some(verified) = self.cache.get(&hash) {
            return in_time(verified, now_ms);
        }
        let keys = Arc::clone(&self.keys.lock().unwrap_or_else(PoisonError::into_inner));
        let verified = self.check(token, &keys)?;
        let principal = in_time(verified.clone(), now_ms)?;
        let current = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, &keys) {
            self.cache.put(hash, verified, now_ms);
        }
        Ok(principal)
    }

    fn check(&self, token: &str, keys: &KeySet) -> Result<Verified, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        let Some(key) = keys.find(header.alg, header.kid.as_deref()) else {
            self.missed.fetch_or(header.kid.is_some(), Ordering::Relaxed);
            return Err(TokenError::NoKey);
        };
        let claims = jsonwebtoken::decode::<Claims>(token, &key.decoding, &key.validation)
            .map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::InvalidSignature => TokenError::Signature,
                _ => TokenError::Malformed,
            })?
            .claims;
        let audience = self.requirements.audience.as_deref();
        if audience.is_some_and(|wanted| !claims.aud.as_ref().is_some_and(|aud| aud.contains(wanted))) {
            return Err(TokenError::Audience);
        }
        if self.requirements.issuer.is_some() && claims.iss != self.requirements.issuer {
            return Err(TokenError::Issuer);
        }
        let scopes = claims.scope.scopes().collect();
        let subject = claims.sub.filter(|sub| !sub.is_empty() && sub.chars().count() <= MAX_SUBJECT);
        let subject = subject.ok_or(TokenError::Subject)?;
        let leeway = LEEWAY.as_millis() as i64;
        let until_ms = seconds_to_ms(claims.exp.ok_or(TokenError::NoExpiry)?).saturating_add(leeway);
        let from_ms = claims.nbf.map_or(i64::MIN, |nbf| seconds_to_ms(nbf).saturating_sub(leeway));
        let service = subject.parse().ok();
        Ok(Verified { principal: Arc::new(Principal { subject, service, scopes }), from_ms, until_ms })
    }
}

fn in_time(verified: Verified, now_ms: i64) -> Result<Arc<Principal>, TokenError> {
    if now_ms >= verified.until_ms {
        Err(TokenError::Expired)
    } else if now_ms < verified.from_ms {
        Err(TokenError::NotYet)
    } else {
        Ok(verified.principal)
    }
}

/// `as` saturates, and makes 0 of what is no number: both are safe here.
fn seconds_to_ms(seconds: f64) -> i64 {
    (seconds * 1_000.0) as i64
}
