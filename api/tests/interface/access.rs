//! Tokens and scopes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hub_api::auth::{Grant, KeyError, KeySet, Requirements, TokenError, Verifier, issue};
use hub_core::access::Scope;
use hub_core::error::code;
use hub_core::time::Timestamp;
use serde_json::{Value, json};

use crate::fakes::NOW_MS;
use crate::rig::{Call, Rig, SECRET, admin, token};

const MESSAGES: &str = "/api/v1/messages";
const NOW_S: i64 = NOW_MS / 1_000;

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", part(header), part(claims))
}

fn hs256(claims: &Value) -> String {
    let text = unsigned(&json!({"alg": "HS256", "typ": "JWT"}), claims);
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET);
    let signature = aws_lc_rs::hmac::sign(&key, text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

fn claims() -> Value {
    json!({"sub": "shop", "scope": "messages:read other:thing", "exp": NOW_S + 60})
}

fn claim(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

#[tokio::test]
async fn tokens_that_are_good() {
    let rig = Rig::new();
    for claims in [
        claims(),
        claim("scope", json!(["messages:read"])),
        claim("nbf", json!(NOW_S + 4)),
        claim("exp", json!(NOW_S - 3)),
        claim("exp", json!(NOW_S as f64 + 0.5)),
    ] {
        rig.call(Call::get(MESSAGES).token(&hs256(&claims))).await.expect(200);
    }
    let lower = Call::get(MESSAGES).header("authorization", &format!("bearer {}", admin()));
    rig.call(lower).await.expect(200);
}

#[tokio::test]
async fn tokens_that_are_not() {
    let rig = Rig::new();
    let none = json!({"alg": "none"});
    let good = hs256(&claims());
    let tampered = format!("{}x", &good[..good.len() - 1]);
    let foreign = {
        let text = unsigned(&json!({"alg": "HS256"}), &claims());
        let key =
            aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"another key of thirty-two bytes or so");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, text.as_bytes()).as_ref()))
    };
    for bad in [
        format!("{}.", unsigned(&none, &claims())),
        format!("{}.{}", unsigned(&json!({"alg": "None"}), &claims()), "AA"),
        format!("{}.{}", unsigned(&json!({"alg": "HS512"}), &claims()), "AA"),
        format!("{}.{}", unsigned(&json!({"alg": "RS256"}), &claims()), "AA"),
        tampered,
        foreign,
        "x".to_owned(),
        "a.b.c".to_owned(),
        "x".repeat(10_000),
        hs256(&json!({"scope": "messages:read", "exp": NOW_S + 60})),
        hs256(&claim("sub", json!(""))),
        hs256(&json!({"sub": "shop", "scope": "messages:read"})),
        hs256(&claim("exp", json!("soon"))),
    ] {
        let answer = rig.call(Call::get(MESSAGES).token(&bad)).await.expect(401).refused(code::BAD_TOKEN);
        assert!(answer.header("www-authenticate").is_some());
    }
    for late in [claim("exp", json!(NOW_S - 6)), claim("nbf", json!(NOW_S + 6))] {
        rig.call(Call::get(MESSAGES).token(&hs256(&late))).await.expect(401).refused(code::EXPIRED_TOKEN);
    }
    rig.call(Call::get(MESSAGES)).await.expect(401).refused(code::NO_TOKEN);
    let basic = Call::get(MESSAGES).header("authorization", "Basic dTpw");
    rig.call(basic).await.expect(401).refused(code::NO_TOKEN);
}

#[tokio::test]
async fn a_cached_token_still_expires() {
    let rig = Rig::new();
    let token = hs256(&claims());
    rig.call(Call::get(MESSAGES).token(&token)).await.expect(200);
    rig.fakes.clock.0.store(NOW_MS + 120_000, Ordering::SeqCst);
    rig.call(Call::get(MESSAGES).token(&token)).await.expect(401).refused(code::EXPIRED_TOKEN);
}

#[tokio::test]
async fn new_keys_end_old_tokens() {
    let rig = Rig::new();
    let token = hs256(&claims());
    rig.call(Call::get(MESSAGES).token(&token)).await.expect(200);
    rig.verifier.set_keys(KeySet::default().with_secret(b"a new key of thirty-two bytes or more").unwrap());
    rig.call(Call::get(MESSAGES).token(&token)).await.expect(401).refused(code::BAD_TOKEN);
}

#[tokio::test]
async fn scopes() {
    let rig = Rig::new();
    let name = "/api/v1/services/shop";
    let calls: [(Call, &[Scope]); 12] = [
        (Call::post(MESSAGES).text("{}"), &[Scope::MessagesSend, Scope::MessagesAdmin]),
        (Call::post("/api/v1/messages/batch").text("{}"), &[Scope::MessagesSend, Scope::MessagesAdmin]),
        (Call::get(MESSAGES), &[Scope::MessagesRead, Scope::MessagesAdmin]),
        (Call::get("/api/v1/dead-letters"), &[Scope::MessagesRead, Scope::MessagesAdmin]),
        (Call::post("/api/v1/services/register").text("{}"), &[Scope::ServicesRegister, Scope::ClusterAdmin]),
        (Call::delete(name), &[Scope::ServicesRegister, Scope::ClusterAdmin]),
        (Call::put("/api/v1/services/shop/pause"), &[Scope::ServicesRegister, Scope::ClusterAdmin]),
        (Call::get(name), &[Scope::ServicesRead, Scope::ServicesRegister, Scope::ClusterAdmin]),
        (Call::get("/api/v1/services"), &[Scope::ServicesRead, Scope::ClusterAdmin]),
        (Call::get("/api/v1/cluster"), &[Scope::ServicesRead, Scope::ClusterAdmin]),
        (Call::post("/api/v1/cluster/drain"), &[Scope::ClusterAdmin]),
        (Call::post("/api/v1/cluster/transfer-leader").text("{}"), &[Scope::ClusterAdmin]),
    ];
    for (call, allowed) in calls {
        let (method, path, kind) = call.parts();
        for scope in Scope::ALL {
            let mut call = Call::new(method.clone(), &path).token(&token("shop", &[scope]));
            if kind {
                call = call.text("{}");
            }
            let answer = rig.call(call).await;
            let refused = answer.status == 403;
            assert_eq!(refused, !allowed.contains(&scope), "{method} {path} {scope:?}: {}", answer.status);
            if refused {
                answer.refused(code::SCOPE);
            }
        }
    }
}

#[tokio::test]
async fn only_as_oneself() {
    let rig = Rig::new();
    rig.register("stock").await;
    let clerk = token("clerk", &[Scope::MessagesSend, Scope::ServicesRegister]);
    let body =
        json!({"sender_service": "shop", "target_service": "stock", "message_type": "t", "content": 1});
    let answer = rig.call(Call::post(MESSAGES).token(&clerk).json(&body)).await;
    answer.expect(403).refused(code::FOREIGN_SERVICE);
    let body = json!({"name": "shop", "url": "http://shop.test"});
    let call = Call::post("/api/v1/services/register").token(&clerk).json(&body);
    rig.call(call).await.expect(403).refused(code::FOREIGN_SERVICE);
    let call = Call::delete("/api/v1/services/stock").token(&clerk);
    rig.call(call).await.expect(403).refused(code::FOREIGN_SERVICE);
    let body = json!({"name": "clerk", "url": "http://clerk.test"});
    rig.call(Call::post("/api/v1/services/register").token(&clerk).json(&body)).await.expect(201);
}

#[tokio::test]
async fn without_tokens_everyone_may_do_everything() {
    let rig = Rig::open();
    let body = json!({"name": "stock", "url": "http://stock.test"});
    rig.call(Call::post("/api/v1/services/register").json(&body)).await.expect(201);
    let body =
        json!({"sender_service": "shop", "target_service": "stock", "message_type": "t", "content": 1});
    rig.call(Call::post(MESSAGES).json(&body)).await.expect(202);
    assert_eq!(rig.fakes.store.taken.lock().unwrap()[0].sender.as_str(), "shop");
    let body = json!({"target_service": "stock", "message_type": "t", "content": 1});
    let answer = rig.call(Call::post(MESSAGES).json(&body)).await.expect(422);
    assert_eq!(answer.pointers(), ["/sender_service"]);
}

/// A token by another's key, and the JWKS that knows it.
fn signed(alg: &str, kid: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let text = unsigned(&json!({"alg": alg, "kid": kid}), &claims());
    let signature = sign(text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn keys_of_an_identity_provider() {
    let ed = Ed25519KeyPair::generate().unwrap();
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = ec.public_key().as_ref();
    let jwks = json!({"keys": [
        {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": URL_SAFE_NO_PAD.encode(ed.public_key().as_ref())},
        {"kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "use": "sig",
         "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..])},
    ]});
    let keys = KeySet::default().with_secret(SECRET).unwrap().with_jwks(&jwks.to_string()).unwrap();
    let verifier = Verifier::new(keys, Requirements::default());
    let now = Timestamp::from_millis(NOW_MS);
    let by_ed = |text: &[u8]| ed.sign(text).as_ref().to_vec();
    let by_ec = |text: &[u8]| ec.sign(&SystemRandom::new(), text).unwrap().as_ref().to_vec();
    assert!(verifier.verify(&signed("EdDSA", "ed", by_ed), now).unwrap().has(Scope::MessagesRead));
    assert!(verifier.verify(&signed("ES256", "ec", by_ec), now).is_ok());
    assert_eq!(verifier.verify(&signed("EdDSA", "other", by_ed), now), Err(TokenError::NoKey));
    assert_eq!(verifier.verify(&signed("ES256", "ed", by_ec), now), Err(TokenError::NoKey));
    assert_eq!(verifier.verify(&signed("EdDSA", "ed", by_ec), now), Err(TokenError::Signature));
    // A public key must never serve as the secret of HS256.
    let public = ed.public_key().as_ref().to_vec();
    let confused = signed("HS256", "ed", |text| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &public);
        aws_lc_rs::hmac::sign(&key, text).as_ref().to_vec()
    });
    assert_eq!(verifier.verify(&confused, now), Err(TokenError::NoKey));
}

#[test]
fn keys_that_are_refused() {
    assert!(matches!(KeySet::default().with_secret(&[0; 31]), Err(KeyError::ShortSecret(31))));
    for (jwks, expected) in [
        ("nonsense", "key set cannot be read"),
        (r#"{"keys":[]}"#, "key set holds no key for signatures"),
        (r#"{"keys":[{"kty":"oct","kid":"s","k":"AAAA"}]}"#, "key s cannot be used: it is symmetric"),
        (
            r#"{"keys":[{"kty":"EC","crv":"P-384","kid":"e","x":"AA","y":"AA"}]}"#,
            "only RSA, P-256 and Ed25519",
        ),
        (
            r#"{"keys":[{"kty":"RSA","alg":"RS512","kid":"r","n":"AQAB","e":"AQAB"}]}"#,
            "only RS256, ES256 and EdDSA",
        ),
    ] {
        let error = KeySet::default().with_jwks(jwks).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn audience_and_issuer() {
    let keys = || KeySet::default().with_secret(SECRET).unwrap();
    let demands = Requirements { audience: Some("hub".into()), issuer: Some("idp".into()) };
    let verifier = Verifier::new(keys(), demands);
    let now = Timestamp::from_millis(NOW_MS);
    let make = |audience, issuer| {
        let lifetime = Duration::from_secs(60);
        let scopes = &[Scope::MessagesRead];
        issue(SECRET, &Grant { subject: "shop", scopes, issued_at: now, lifetime, audience, issuer }).unwrap()
    };
    assert!(verifier.verify(&make(Some("hub"), Some("idp")), now).is_ok());
    assert_eq!(verifier.verify(&make(None, Some("idp")), now), Err(TokenError::Audience));
    assert_eq!(verifier.verify(&make(Some("hub"), None), now), Err(TokenError::Issuer));
    let several = hs256(&json!({"sub": "a", "exp": NOW_S + 60, "aud": ["x", "hub"], "iss": "idp"}));
    assert!(verifier.verify(&several, now).is_ok());
}
