//! The keys that tokens are verified with. Each key has one algorithm; the token's own claim about it decides nothing.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::token::MIN_SECRET_BYTES;

/// Why keys were not taken.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// `SECRET_KEY` is too short to be safe.
    #[error(
        "secret key has {0} bytes, but at least {MIN_SECRET_BYTES} are needed; make one with `openssl rand -base64 48`"
    )]
    ShortSecret(usize),
    /// The JWKS is not JSON of the right shape.
    #[error("key set cannot be read")]
    Jwks(#[source] serde_json::Error),
    /// A key of the JWKS cannot be used.
    #[error("key {kid} cannot be used: {reason}")]
    Key {
        /// Its `kid`, or its place in the list.
        kid: String,
        /// Why not.
        reason: String,
    },
    /// Two keys of the JWKS have one `kid`.
    #[error("key {0} is there twice")]
    Doubled(String),
    /// The JWKS holds no key that signs.
    #[error("key set holds no key for signatures")]
    Empty,
}

/// One key with its one algorithm.
pub(super) struct Key {
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    pub(super) validation: Validation,
}

impl Key {
    fn new(kid: Option<String>, algorithm: Algorithm, decoding: DecodingKey) -> Self {
        // The library checks the signature; time and audience are checked here, by our clock.
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Self { kid, algorithm, decoding, validation }
    }
}

/// All keys of a cluster: its own secret, the keys of an identity provider, or both.
#[derive(Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| (&key.kid, key.algorithm))).finish()
    }
}

impl KeySet {
    /// Adds `SECRET_KEY`, for HS256.
    ///
    /// # Errors
    /// `ShortSecret` below 32 bytes.
    pub fn with_secret(mut self, secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err(KeyError::ShortSecret(secret.len()));
        }
        self.keys.push(Key::new(None, Algorithm::HS256, DecodingKey::from_secret(secret)));
        Ok(self)
    }

    /// Adds the signing keys of a JWKS document (RFC 7517): RS256, ES256 and `EdDSA`. Keys for encryption are left out;
    /// symmetric ones are refused.
    ///
    /// # Errors
    /// When the document or one of its keys cannot be used.
    pub fn with_jwks(mut self, document: &str) -> Result<Self, KeyError> {
        let set: JwkSet = serde_json::from_str(document).map_err(KeyError::Jwks)?;
        let before = self.keys.len();
        for (at, jwk) in set.keys.iter().enumerate() {
            if jwk.common.public_key_use == Some(PublicKeyUse::Encryption) {
                continue;
            }
            let kid = jwk.common.key_id.clone();
            let name = kid.clone().unwrap_or_else(|| format!("number {}", at + 1));
            if kid.is_some() && self.keys.iter().any(|key| key.kid == kid) {
                return Err(KeyError::Doubled(name));
            }
            let refused = |reason: String| KeyError::Key { kid: name.clone(), reason };
            let algorithm = algorithm_of(jwk).map_err(|reason| refused(reason.to_owned()))?;
            let decoding = DecodingKey::from_jwk(jwk).map_err(|error| refused(error.to_string()))?;
            self.keys.push(Key::new(kid, algorithm, decoding));
        }
        if self.keys.len() == before { Err(KeyError::Empty) } else { Ok(self) }
    }

    /// The key that a token with this header must have been signed with. Without a `kid` there must be no choice.
    pub(super) fn find(&self, algorithm: Algorithm, kid: Option<&str>) -> Option<&Key> {
        if let Some(kid) = kid
            && let Some(key) = self.keys.iter().find(|key| key.kid.as_deref() == Some(kid))
        {
            return Some(key).filter(|key| key.algorithm == algorithm);
        }
        if kid.is_some() && algorithm != Algorithm::HS256 {
            return None;
        }
        let mut fitting = self.keys.iter().filter(|key| key.algorithm == algorithm);
        fitting.next().filter(|_| fitting.next().is_none())
    }
}

fn algorithm_of(jwk: &Jwk) -> Result<Algorithm, &'static str> {
    let by_type = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        AlgorithmParameters::OctetKey(_) => return Err("it is symmetric; use SECRET_KEY for that"),
        _ => return Err("only RSA, P-256 and Ed25519 keys are supported"),
    };
    match (jwk.common.key_algorithm, by_type) {
        (None, _)
        | (Some(KeyAlgorithm::RS256), Algorithm::RS256)
        | (Some(KeyAlgorithm::ES256), Algorithm::ES256)
        | (Some(KeyAlgorithm::EdDSA), Algorithm::EdDSA) => Ok(by_type),
        _ => Err("only RS256, ES256 and EdDSA are supported"),
    }
}
