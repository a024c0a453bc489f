//! Tokens of an identity provider: RS256 keys known by their JWKS.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hub_api::auth::KeySet;
use hub_core::error::code;
use serde_json::{Value, json};

use crate::fakes::NOW_MS;
use crate::rig::{Call, Rig};

const MESSAGES: &str = "/api/v1/messages";
const NOW_S: i64 = NOW_MS / 1_000;

/// A key of the provider.
struct Key {
    kid: &'static str,
    pair: RsaKeyPair,
}

impl Key {
    fn new(kid: &'static str) -> Self {
        Self { kid, pair: RsaKeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    /// The public half (RFC 7518). The DER of a 2048 bit key with the usual exponent always has the same layout.
    fn jwk(&self) -> Value {
        let der = self.pair.public_key().as_ref();
        assert_eq!((der.len(), &der[der.len() - 5..]), (270, [2, 3, 1, 0, 1].as_slice()));
        let (n, e) = (URL_SAFE_NO_PAD.encode(&der[9..265]), URL_SAFE_NO_PAD.encode([1, 0, 1]));
        json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": n, "e": e})
    }

    fn signed(&self, header: &Value, claims: &Value, padding: &'static dyn RsaEncoding) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(padding, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn token(&self, claims: &Value) -> String {
        self.signed(&json!({"alg": "RS256", "typ": "JWT", "kid": self.kid}), claims, &RSA_PKCS1_SHA256)
    }
}

fn claims() -> Value {
    json!({"sub": "shop", "scope": "messages:read messages:send", "exp": NOW_S + 60, "aud": "hub", "iss": "idp"})
}

fn claim(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn set(keys: &[&Key]) -> Value {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()})
}

#[tokio::test]
async fn each_kind_of_bad_token_has_its_code() {
    let (key, stranger) = (Key::new("one"), Key::new("one"));
    let rig = Rig::with_provider(&set(&[&key]), "hub");
    rig.call(Call::get(MESSAGES).token(&key.token(&claims()))).await.expect(200);
    rig.call(Call::get(MESSAGES).token(&key.token(&claim("aud", json!(["x", "hub"]))))).await.expect(200);

    let header = |alg: &str| json!({"alg": alg, "kid": "one"});
    let none = {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.", part(&header("none")), part(&claims()))
    };
    // The public key as an HMAC secret, the oldest of tricks.
    let confused = {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&header("HS256")), part(&claims()));
        let public = key.pair.public_key().as_ref();
        let hmac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public);
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&hmac, text.as_bytes()).as_ref()))
    };
    for (what, bad) in [
        ("unsigned", none),
        ("signed with the public key", confused),
        ("a stranger's signature", stranger.token(&claims())),
        ("another algorithm of the same key", key.signed(&header("PS256"), &claims(), &RSA_PSS_SHA256)),
        ("padding that the header denies", key.signed(&header("RS256"), &claims(), &RSA_PSS_SHA256)),
        ("an unknown kid", key.signed(&json!({"alg": "RS256", "kid": "two"}), &claims(), &RSA_PKCS1_SHA256)),
        ("for another audience", key.token(&claim("aud", json!("elsewhere")))),
        ("for no audience", key.token(&claim("aud", Value::Null))),
    ] {
        let answer = rig.call(Call::get(MESSAGES).token(&bad)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (401, code::BAD_TOKEN.to_string()), "{what}");
    }
    let late = key.token(&claim("exp", json!(NOW_S - 60)));
    rig.call(Call::get(MESSAGES).token(&late)).await.expect(401).refused(code::EXPIRED_TOKEN);
    let early = key.token(&claim("nbf", json!(NOW_S + 60)));
    rig.call(Call::get(MESSAGES).token(&early)).await.expect(401).refused(code::EXPIRED_TOKEN);

    let foreign = json!({"sender_service": "bank", "target_service": "x", "message_type": "t", "content": 1});
    let call = Call::post(MESSAGES).token(&key.token(&claims())).json(&foreign);
    rig.call(call).await.expect(403).refused(code::FOREIGN_SERVICE);
    let call = Call::post("/api/v1/cluster/drain").token(&key.token(&claims()));
    rig.call(call).await.expect(403).refused(code::SCOPE);
}

#[tokio::test]
async fn keys_rotate_by_their_kid() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let rig = Rig::with_provider(&set(&[&old]), "hub");
    let (by_old, by_new) = (old.token(&claims()), new.token(&claims()));
    let ask = async |token: &str| rig.call(Call::get(MESSAGES).token(token)).await.status.as_u16();
    assert_eq!((ask(&by_old).await, ask(&by_new).await), (200, 401));
    let change = |keys: &[&Key]| {
        rig.verifier.set_keys(KeySet::default().with_jwks(&set(keys).to_string()).unwrap());
    };
    change(&[&old, &new]);
    assert_eq!((ask(&by_old).await, ask(&by_new).await), (200, 200));
    change(&[&new]);
    assert_eq!((ask(&by_old).await, ask(&by_new).await), (401, 200));
}
