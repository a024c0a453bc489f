//! Keys: who may call, and what nodes prove to each other.

use std::sync::Arc;

use hub_api::auth::{Access, Requirements, Verifier};
use hub_core::error::code;
use hub_raft::ClusterKey;
use tracing::{info, warn};

use super::base::Base;
use super::key_sets::KeySets;
use crate::coded::CodedError;

/// How callers are known. Key sets of an identity provider are read again when they change.
///
/// # Errors
/// No key at all (`HUB-2002`), or one that cannot be used.
pub async fn access(base: &Base) -> Result<Access, CodedError> {
    let auth = &base.config.auth;
    if !auth.enabled {
        warn!("calls need no token: everybody who reaches this node may do everything");
        return Ok(Access::open());
    }
    if auth.secret_key.is_none() && auth.jwks_file.is_none() && auth.jwks_url.is_none() {
        let detail =
            "there is no key to check tokens with: set SECRET_KEY, JWKS_FILE or JWKS_URL, or say --no-auth";
        return Err(CodedError::new(code::NO_KEY, detail));
    }
    let sets = KeySets::new(base)?;
    let (keys, complete) = sets.first().await?;
    let requirements = Requirements { audience: auth.audience.clone(), issuer: auth.issuer.clone() };
    let verifier = Arc::new(Verifier::new(keys, requirements));
    sets.follow(&base.tasks, &verifier, complete);
    Ok(Access::Tokens(verifier))
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
