//! What stands in a token, and how one is made.

use std::time::Duration;

use hub_core::access::Scope;
use hub_core::time::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};

/// The shortest `SECRET_KEY`, in bytes.
pub const MIN_SECRET_BYTES: usize = 32;

/// The claims that are read. Times are seconds since the epoch, possibly with a fraction.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) sub: Option<String>,
    #[serde(default)]
    pub(super) scope: ScopeClaim,
    pub(super) exp: Option<f64>,
    pub(super) nbf: Option<f64>,
    pub(super) aud: Option<OneOrMany>,
    pub(super) iss: Option<String>,
}

/// `scope` as RFC 8693 has it (words in one string), or as a list.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum ScopeClaim {
    Words(String),
    List(Vec<String>),
}

impl Default for ScopeClaim {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl ScopeClaim {
    /// The scopes known here; a token may carry others for other services.
    pub(super) fn scopes(&self) -> impl Iterator<Item = Scope> {
        let (words, list) = match self {
            Self::Words(words) => (words.as_str(), &[][..]),
            Self::List(list) => ("", list.as_slice()),
        };
        words.split_whitespace().chain(list.iter().map(String::as_str)).filter_map(|word| word.parse().ok())
    }
}

/// One audience or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn contains(&self, wanted: &str) -> bool {
        match self {
            Self::One(one) => one == wanted,
            Self::Many(many) => many.iter().any(|one| one == wanted),
        }
    }
}

/// What a new token shall say.
#[derive(Clone, Debug)]
pub struct Grant<'a> {
    /// The service, or another subject.
    pub subject: &'a str,
    /// What it may do.
    pub scopes: &'a [Scope],
    /// From when.
    pub issued_at: Timestamp,
    /// For how long.
    pub lifetime: Duration,
    /// For whom, when the cluster demands it.
    pub audience: Option<&'a str>,
    /// By whom, when the cluster demands it.
    pub issuer: Option<&'a str>,
}

#[derive(Serialize)]
struct Issued<'a> {
    sub: &'a str,
    scope: String,
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
}

/// Makes an HS256 token.
///
/// # Errors
/// When the signature cannot be made.
pub fn issue(secret: &[u8], grant: &Grant<'_>) -> Result<String, jsonwebtoken::errors::Error> {
    super::install_crypto();
    let words: Vec<&str> = grant.scopes.iter().map(|scope| scope.as_str()).collect();
    let claims = Issued {
        sub: grant.subject,
        scope: words.join(" "),
        iat: grant.issued_at.as_millis().div_euclid(1_000),
        exp: grant.issued_at.plus(grant.lifetime).as_millis().div_euclid(1_000),
        aud: grant.audience,
        iss: grant.issuer,
    };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret))
}
