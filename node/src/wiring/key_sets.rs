//! The keys that tokens are checked with: the cluster's own secret, and the key sets (JWKS) of an identity provider, in a
//! file or fetched, which are read again when they change.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hub_api::auth::{KeySet, Verifier};
use hub_core::error::{chain, code};
use hyper::header::{ACCEPT, HeaderMap, HeaderValue};
use hyper::{Method, Uri};
use tracing::{info, warn};

use super::base::Base;
use super::delivery::outbound;
use crate::coded::CodedError;
use crate::config::Config;
use crate::lifecycle::{OnCancel, OnError, Stage, TaskKind, Tasks};
use crate::outbound::{Anywhere, Call, DRAINED, Departure, Outbound};

/// How often the file is looked at, and the soonest that the provider is asked again.
const LOOK: Duration = Duration::from_secs(5);
/// How often the provider is asked when nothing calls for it.
const REFRESH: Duration = Duration::from_secs(300);
/// How long the provider may take.
const FETCH: Duration = Duration::from_secs(10);

const KIND: TaskKind =
    TaskKind { name: "key_sets", stage: Stage::Base, on_error: OnError::Restart, on_cancel: OnCancel::Drop };

/// Where the keys come from. Cheap to clone.
#[derive(Clone)]
pub(super) struct KeySets {
    config: Arc<Config>,
    provider: Option<(Outbound, Uri)>,
}

/// When the file was changed, and how long it is; `None` while it cannot be seen.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}

impl KeySets {
    /// As the settings say.
    ///
    /// # Errors
    /// The way to the provider cannot be set up.
    pub(super) fn new(base: &Base) -> Result<Self, CodedError> {
        let config = Arc::clone(&base.config);
        let provider = match &config.auth.jwks_url {
            Some(url) => {
                let url = url.parse().map_err(|error: hyper::http::uri::InvalidUri| {
                    CodedError::new(code::CONFIG, "JWKS_URL cannot be used").because(error)
                })?;
                Some((outbound(base, Arc::new(Anywhere))?, url))
            }
            None => None,
        };
        Ok(Self { config, provider })
    }

    /// The first keys, and whether they are all: a provider that does not answer is asked again later, if there is another
    /// key to start with.
    ///
    /// # Errors
    /// There is no key, or one that cannot be used.
    pub(super) async fn first(&self) -> Result<(KeySet, bool), CodedError> {
        match self.keys().await {
            Ok(keys) => Ok((keys, true)),
            Err(error) if error.code == code::NO_KEY && self.has_local() => {
                warn!(error = %chain(&error), "starting without the keys of the identity provider");
                Ok((self.local()?, false))
            }
            Err(error) => Err(error),
        }
    }

    fn has_local(&self) -> bool {
        self.config.auth.secret_key.is_some() || self.config.auth.jwks_file.is_some()
    }

    /// All keys as they are now.
    async fn keys(&self) -> Result<KeySet, CodedError> {
        let local = self.local()?;
        let Some((way, url)) = &self.provider else { return Ok(local) };
        let document = fetch(way, url).await.map_err(|reason| {
            CodedError::new(code::NO_KEY, format!("the key set at {url} cannot be fetched: {reason}"))
        })?;
        let wrong = |error| {
            CodedError::new(code::NO_KEY, format!("the key set at {url} cannot be used")).because(error)
        };
        local.with_jwks(&document).map_err(wrong)
    }

    /// The secret, and the keys in the file.
    fn local(&self) -> Result<KeySet, CodedError> {
        let auth = &self.config.auth;
        let mut keys = KeySet::default();
        if let Some(secret) = &auth.secret_key {
            let wrong = |error| CodedError::new(code::NO_KEY, "SECRET_KEY cannot be used").because(error);
            keys = keys.with_secret(secret.expose().as_bytes()).map_err(wrong)?;
        }
        if let Some(path) = &auth.jwks_file {
            let wrong =
                || CodedError::new(code::CONFIG, format!("the key set {} cannot be used", path.display()));
            let document = std::fs::read_to_string(path).map_err(|error| wrong().because(error))?;
            keys = keys.with_jwks(&document).map_err(|error| wrong().because(error))?;
        }
        Ok(keys)
    }

    /// Gives new keys to `verifier` from now on. `complete` says whether it has all that there were.
    pub(super) fn follow(self, tasks: &Tasks, verifier: &Arc<Verifier>, complete: bool) {
        if self.provider.is_none() && self.config.auth.jwks_file.is_none() {
            return;
        }
        let verifier = Arc::clone(verifier);
        tasks.restarting(KIND, move |_| {
            let (sets, verifier) = (self.clone(), Arc::clone(&verifier));
            async move {
                sets.run(&verifier, complete).await;
                Ok(())
            }
        });
    }

    async fn run(&self, verifier: &Verifier, mut complete: bool) {
        let stamp = || self.config.auth.jwks_file.as_deref().and_then(stamp);
        let (mut seen, mut age) = (stamp(), Duration::ZERO);
        loop {
            tokio::time::sleep(LOOK).await;
            age += LOOK;
            let now = stamp();
            let changed = now.is_some() && now != seen;
            let asked = self.provider.is_some() && (verifier.take_missed() || age >= REFRESH || !complete);
            if !changed && !asked {
                continue;
            }
            (seen, age) = (now.or(seen), Duration::ZERO);
            complete = match self.keys().await {
                Ok(keys) => {
                    verifier.set_keys(keys);
                    info!("the keys for tokens were read again");
                    true
                }
                Err(error) => {
                    warn!(error = %chain(&error), "the old keys for tokens stay in force");
                    false
                }
            };
        }
    }
}

/// The key set as the provider shows it; or why not, for people.
async fn fetch(way: &Outbound, url: &Uri) -> Result<String, String> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/jwk-set+json, application/json"));
    let call = Call {
        method: Method::GET,
        uri: url.clone(),
        headers,
        body: Bytes::new(),
        timeout: FETCH,
        keep: DRAINED,
        departure: Departure::default(),
    };
    let answer = way.call(call).await.map_err(|error| error.as_str().to_owned())?;
    if answer.status != 200 {
        return Err(format!("answered {}", answer.status));
    }
    String::from_utf8(answer.body.to_vec()).map_err(|error| error.to_string())
}
