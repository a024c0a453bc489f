//! `token`: makes an access token (HS256) with the cluster's key.

use std::path::PathBuf;
use std::time::Duration;

use hub_core::access::Scope;
use hub_core::error::code;
use hub_core::id::ServiceName;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::{Failure, output};
use crate::client::source;

/// A shorter key is refused, here as by `serve`.
const LEAST_KEY_BYTES: usize = 32;

/// Make an access token.
#[derive(Debug, clap::Args)]
#[command(after_help = "Scopes: messages:send messages:read messages:admin services:register services:read \
transactions breakers:admin cluster:admin\n\nExample: export MESSAGE_HUB_TOKEN=$(message-hub token --service \
character --scope messages:send,messages:read)")]
pub(super) struct Args {
    /// The service that the token speaks for.
    #[arg(long, value_name = "NAME")]
    service: ServiceName,
    /// What it may do; separated by commas, or repeated.
    #[arg(long, required = true, value_delimiter = ',', value_name = "SCOPE", value_parser = parse_scope)]
    scope: Vec<Scope>,
    /// How long it is valid.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration, value_name = "DURATION")]
    ttl: Duration,
    /// File with the cluster's key.
    #[arg(long, env = "SECRET_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    secret_key_file: Option<PathBuf>,
    /// The cluster's key itself; only from the environment, so that it shows in no list of processes.
    #[arg(long, env = "SECRET_KEY", hide = true, hide_env_values = true)]
    secret_key: Option<SecretString>,
    /// `aud`, if the cluster asks for one.
    #[arg(long, value_name = "TEXT")]
    audience: Option<String>,
    /// `iss`, if the cluster asks for one.
    #[arg(long, value_name = "TEXT")]
    issuer: Option<String>,
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    let known = || Scope::ALL.map(Scope::as_str).join(", ");
    text.parse().map_err(|_| format!("is no scope; there are {}", known()))
}

/// What a token says.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Claims {
    /// The service.
    sub: String,
    /// Scopes, separated by spaces.
    scope: String,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
}

impl Claims {
    /// Claims that are valid from now on.
    pub(crate) fn new(service: &ServiceName, scopes: &[Scope], ttl: Duration) -> Self {
        let now = source::unix_seconds();
        let mut words: Vec<&str> = scopes.iter().copied().map(Scope::as_str).collect();
        words.dedup();
        Self {
            sub: service.to_string(),
            scope: words.join(" "),
            iat: now,
            exp: now.saturating_add(ttl.as_secs()),
            aud: None,
            iss: None,
        }
    }

    /// The signed token.
    pub(crate) fn sign(&self, key: &SecretString) -> Result<SecretString, Failure> {
        let key = key.expose_secret().as_bytes();
        if key.len() < LEAST_KEY_BYTES {
            return Err(Failure::Usage(format!(
                "{}: the key has {} bytes, it needs at least {LEAST_KEY_BYTES}; make one: openssl rand -base64 48",
                code::NO_KEY,
                key.len()
            )));
        }
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), self, &EncodingKey::from_secret(key))
            .map(SecretString::from)
            .map_err(Failure::failed)
    }
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    if args.ttl.is_zero() {
        return Err(Failure::Usage("--ttl must be longer than nothing".to_owned()));
    }
    let key = match (&args.secret_key_file, args.secret_key) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
            SecretString::from(text.trim_end_matches(['\n', '\r']))
        }
        (None, Some(key)) => key,
        (None, None) => {
            let missing = "set SECRET_KEY, or name a file with --secret-key-file";
            return Err(Failure::Usage(format!("{}: no key: {missing}", code::NO_KEY)));
        }
    };
    let mut claims = Claims::new(&args.service, &args.scope, args.ttl);
    claims.aud = args.audience;
    claims.iss = args.issuer;
    output::print(claims.sign(&key)?.expose_secret().as_bytes())
}

/// The service that a token speaks for, read without checking it: the hub does that.
pub(super) fn subject(token: &SecretString) -> Option<String> {
    use base64::Engine as _;
    #[derive(serde::Deserialize)]
    struct Subject {
        sub: String,
    }
    let payload = token.expose_secret().split('.').nth(1)?;
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice::<Subject>(&json).ok().map(|subject| subject.sub)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{DecodingKey, Validation};

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn tokens_can_be_checked() {
        let service: ServiceName = "character".parse().unwrap();
        let claims =
            Claims::new(&service, &[Scope::MessagesSend, Scope::ServicesRead], Duration::from_secs(60));
        let token = claims.sign(&SecretString::from(KEY)).unwrap();
        assert_eq!(subject(&token).as_deref(), Some("character"));
        let read = jsonwebtoken::decode::<serde_json::Value>(
            token.expose_secret(),
            &DecodingKey::from_secret(KEY.as_bytes()),
            &Validation::new(Algorithm::HS256),
        )
        .unwrap();
        assert_eq!(read.claims["scope"], "messages:send services:read");
        let lifetime = read.claims["exp"].as_u64().unwrap() - read.claims["iat"].as_u64().unwrap();
        assert_eq!(lifetime, 60);
    }

    #[test]
    fn short_keys_are_refused() {
        let claims = Claims::new(&"a".parse().unwrap(), &[Scope::MessagesSend], Duration::from_secs(1));
        let failure = claims.sign(&SecretString::from("short")).unwrap_err();
        assert_eq!(failure.exit(), super::super::Exit::Usage);
        assert!(failure.to_string().contains("HUB-2002"));
    }

    #[test]
    fn scopes_are_checked() {
        assert!(parse_scope("messages:sned").unwrap_err().contains("messages:send"));
    }
}
