//! Keys: who may call, and what nodes prove to each other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hub_api::auth::{Access, KeySet, Requirements, Verifier};
use hub_core::error::code;
use hub_raft::ClusterKey;
use tracing::{info, warn};

use super::base::Base;
use crate::coded::CodedError;
use crate::config::Config;
use crate::lifecycle::{OnCancel, OnError, Stage, TaskKind, Tasks, chain};

/// How often the key set's file is looked at.
const LOOK: Duration = Duration::from_secs(5);

const WATCH: TaskKind =
    TaskKind { name: "key_set", stage: Stage::Base, on_error: OnError::Restart, on_cancel: OnCancel::Drop };

/// How callers are known. A key set in a file is read again whenever the file changes.
///
/// # Errors
/// No key at all (`HUB-2002`), or one that cannot be used.
pub fn access(base: &Base) -> Result<Access, CodedError> {
    let config = &base.config;
    let auth = &config.auth;
    if !auth.enabled {
        warn!("calls need no token: everybody who reaches this node may do everything");
        return Ok(Access::open());
    }
    if auth.secret_key.is_none() && auth.jwks_file.is_none() {
        let detail = "there is no key to check tokens with: set SECRET_KEY or JWKS_FILE, or say --no-auth";
        return Err(CodedError::new(code::NO_KEY, detail));
    }
    let keys = keys(config)?;
    let requirements = Requirements { audience: auth.audience.clone(), issuer: auth.issuer.clone() };
    let verifier = Arc::new(Verifier::new(keys, requirements));
    if let Some(path) = &auth.jwks_file {
        watch(&base.tasks, path.clone(), Arc::clone(config), &verifier);
    }
    Ok(Access::Tokens(verifier))
}

fn keys(config: &Config) -> Result<KeySet, CodedError> {
    let mut keys = KeySet::default();
    if let Some(secret) = &config.auth.secret_key {
        let wrong = |error| CodedError::new(code::NO_KEY, "SECRET_KEY cannot be used").because(error);
        keys = keys.with_secret(secret.expose().as_bytes()).map_err(wrong)?;
    }
    if let Some(path) = &config.auth.jwks_file {
        let wrong = || format!("the key set {} cannot be used", path.display());
        let document = std::fs::read_to_string(path)
            .map_err(|error| CodedError::new(code::CONFIG, wrong()).because(error))?;
        keys = keys
            .with_jwks(&document)
            .map_err(|error| CodedError::new(code::CONFIG, wrong()).because(error))?;
    }
    Ok(keys)
}

/// When the file was changed, and how long it is; `None` while it cannot be seen.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}

fn watch(tasks: &Tasks, path: PathBuf, config: Arc<Config>, verifier: &Arc<Verifier>) {
    let verifier = Arc::clone(verifier);
    tasks.restarting(WATCH, move |_| {
        let (path, config, verifier) = (path.clone(), Arc::clone(&config), Arc::clone(&verifier));
        async move {
            let mut seen = stamp(&path);
            loop {
                tokio::time::sleep(LOOK).await;
                let now = stamp(&path);
                if now.is_none() || now == seen {
                    continue;
                }
                seen = now;
                match keys(&config) {
                    Ok(keys) => {
                        verifier.set_keys(keys);
                        info!(file = %path.display(), "the key set was read again");
                    }
                    Err(error) => {
                        warn!(file = %path.display(), error = %chain(&error), "the old key set stays in force");
                    }
                }
            }
        }
    });
}

/// The key that nodes prove to each other: `CLUSTER_KEY`, or derived from `SECRET_KEY`. Without either a random one: no
/// other node can join then.
///
/// # Errors
/// There is none, and the node is to join or form a cluster.
pub fn cluster_key(base: &Base) -> Result<ClusterKey, CodedError> {
    let config = &base.config;
    if let Some(key) = &config.raft.cluster_key {
        return Ok(ClusterKey::new(key.expose().as_bytes()));
    }
    if let Some(secret) = &config.auth.secret_key {
        return Ok(ClusterKey::derived(secret.expose().as_bytes()));
    }
    if config.raft.expect > 0 || !config.raft.join.is_empty() {
        let detail = "nodes need a key to know each other by: set CLUSTER_KEY, or SECRET_KEY";
        return Err(CodedError::new(code::NO_KEY, detail));
    }
    info!("there is neither CLUSTER_KEY nor SECRET_KEY: no other node can join this one");
    let mut key = [0; 32];
    base.ids.secret(&mut key);
    Ok(ClusterKey::new(&key))
}
