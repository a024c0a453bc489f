//! Tokens of an identity provider at a real node: its key set in a file or fetched, and the rotation of its keys.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hub_core::error::code;
use hub_node::clock::{Machine, SystemMachine};
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::{Http, TestNode, locked, refused, until};

fn token(key: &Ed25519KeyPair, kid: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let expiry = SystemMachine.wall().plus(Duration::from_secs(600)).as_millis() / 1_000;
    let claims = json!({"sub": "shop", "scope": "messages:read", "exp": expiry});
    let text = format!("{}.{}", part(json!({"alg": "EdDSA", "kid": kid})), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(text.as_bytes()).as_ref());
    format!("{text}.{signature}")
}

fn key_set(key: &Ed25519KeyPair, kid: &str) -> String {
    let public = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
    json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": public}]}).to_string()
}

/// Waits until the token is good.
async fn accepts(http: &Http, url: &str, token: &str) -> anyhow::Result<()> {
    until("the key", || async {
        let (status, answer) = http.get_as(url, token).await?;
        ensure!(status == StatusCode::OK, "{status}: {answer}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_in_a_file_is_read_again_when_it_changes() -> anyhow::Result<()> {
    let (folder, http) = (tempfile::tempdir()?, Http::new());
    let (old, new) = (Ed25519KeyPair::generate()?, Ed25519KeyPair::generate()?);
    let file = folder.path().join("jwks.json");
    std::fs::write(&file, key_set(&old, "old"))?;
    let path = file.to_string_lossy().into_owned();
    let settings = [("auth.enabled", "true"), ("auth.jwks_file", path.as_str())];
    let mut node = TestNode::start(&folder.path().join("1"), &settings).await?;
    node.ready(&http).await?;
    let url = format!("{}/api/v1/messages", node.url);
    let (by_old, by_new) = (token(&old, "old"), token(&new, "new"));
    let status = http.get(&url).await?.0;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "no token");
    assert_eq!(http.get_as(&url, &by_old).await?.0, StatusCode::OK);
    assert_eq!(http.get_as(&url, &by_new).await?.0, StatusCode::UNAUTHORIZED);

    std::fs::write(file.with_extension("next"), key_set(&new, "new"))?;
    std::fs::rename(file.with_extension("next"), &file)?;
    accepts(&http, &url, &by_new).await?;
    let (status, answer) = http.get_as(&url, &by_old).await?;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{answer}");
    assert_eq!(answer["code"], code::BAD_TOKEN.to_string(), "{answer}");
    node.stop().await;
    Ok(())
}

/// Shows the key set that it holds.
async fn provider(shown: &Arc<Mutex<String>>) -> anyhow::Result<(String, tokio::task::JoinSet<()>)> {
    let shown = Arc::clone(shown);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/keys", listener.local_addr()?);
    let router = axum::Router::new().route("/keys", axum::routing::get(async move || locked(&shown).clone()));
    let mut task = tokio::task::JoinSet::new();
    task.spawn(async move {
        let _ended = axum::serve(listener, router).await;
    });
    Ok((url, task))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_is_fetched_again_when_a_token_names_a_new_key() -> anyhow::Result<()> {
    let (folder, http) = (tempfile::tempdir()?, Http::new());
    let (old, new) = (Ed25519KeyPair::generate()?, Ed25519KeyPair::generate()?);
    let shown = Arc::new(Mutex::new(key_set(&old, "old")));
    let (jwks, _running) = provider(&shown).await?;
    let settings = [("auth.enabled", "true"), ("auth.jwks_url", jwks.as_str())];
    let mut node = TestNode::start(&folder.path().join("1"), &settings).await?;
    node.ready(&http).await?;
    let url = format!("{}/api/v1/messages", node.url);
    let (by_old, by_new) = (token(&old, "old"), token(&new, "new"));
    assert_eq!(http.get_as(&url, &by_old).await?.0, StatusCode::OK);
    assert_eq!(http.get_as(&url, &by_new).await?.0, StatusCode::UNAUTHORIZED);
    *locked(&shown) = key_set(&new, "new");
    accepts(&http, &url, &by_new).await?;
    assert_eq!(http.get_as(&url, &by_old).await?.0, StatusCode::UNAUTHORIZED);
    node.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_is_refused_or_waited_for() -> anyhow::Result<()> {
    let (folder, http) = (tempfile::tempdir()?, Http::new());
    let key = Ed25519KeyPair::generate()?;
    let shown = Arc::new(Mutex::new("not yet".to_owned()));
    let (jwks, _running) = provider(&shown).await?;
    let settings = [("auth.enabled", "true"), ("auth.jwks_url", jwks.as_str())];
    assert_eq!(refused(&folder.path().join("1"), &settings).await?.code, code::NO_KEY);
    // With a key of its own the cluster starts, and takes the provider's as soon as they can be had.
    let secret = ("auth.secret_key", "a secret key that is long enough for a test");
    let settings = [settings[0], settings[1], secret];
    let mut node = TestNode::start(&folder.path().join("2"), &settings).await?;
    node.ready(&http).await?;
    *locked(&shown) = key_set(&key, "one");
    accepts(&http, &format!("{}/api/v1/messages", node.url), &token(&key, "one")).await?;
    node.stop().await;
    Ok(())
}
