//! Standard Webhooks v1: HMAC-SHA256 over `id.timestamp.body`, one signature for each valid secret.

use std::fmt::Write as _;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hub_core::registry::Secret;
use hub_core::time::Timestamp;

/// The `webhook-signature` value over `body`: `v1,…` for each secret that is valid at `now`, newest first, separated by
/// spaces. `timestamp` is in whole seconds. `None` when no secret is valid.
#[must_use]
pub fn sign(secrets: &[Secret], id: &str, timestamp: i64, body: &[u8], now: Timestamp) -> Option<String> {
    let mut signature = String::new();
    let mut head = String::with_capacity(id.len() + 24);
    // Writing to a string cannot fail.
    let _ = write!(head, "{id}.{timestamp}.");
    let valid = secrets.iter().filter(|secret| secret.valid_until.is_none_or(|until| now < until));
    for key in valid.filter_map(|secret| key(&secret.value)) {
        let mut context = hmac::Context::with_key(&key);
        context.update(head.as_bytes());
        context.update(body);
        if !signature.is_empty() {
            signature.push(' ');
        }
        signature.push_str("v1,");
        STANDARD.encode_string(context.sign(), &mut signature);
    }
    (!signature.is_empty()).then_some(signature)
}

fn key(secret: &str) -> Option<hmac::Key> {
    let bytes = STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).ok()?;
    Some(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::EPOCH;

    fn secret(value: &str, valid_until: Option<Timestamp>) -> Secret {
        Secret { value: value.into(), created_at: NOW, valid_until }
    }

    /// The vector that the specification's reference libraries share.
    #[test]
    fn signs_the_known_answer() {
        let secrets = [secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None)];
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            sign(&secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body, NOW).unwrap(),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn signs_with_every_valid_secret() {
        let past = Timestamp::EPOCH;
        let now = past.plus(std::time::Duration::from_secs(1));
        let first = secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None);
        let second = secret(
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            Some(now.plus(std::time::Duration::from_secs(1))),
        );
        let over = secret("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", Some(now));
        let both = sign(&[first.clone(), second.clone()], "id", 1, b"{}", now).unwrap();
        let alone: Vec<_> = [&first, &second]
            .map(|secret| sign(std::slice::from_ref(secret), "id", 1, b"{}", now).unwrap())
            .into();
        assert_eq!(both, alone.join(" "));
        assert_eq!(sign(&[first, over.clone()], "id", 1, b"{}", now).unwrap(), alone[0]);
        assert_eq!(sign(&[over], "id", 1, b"{}", now), None);
        assert_eq!(sign(&[secret("whsec_not base64", None)], "id", 1, b"{}", now), None);
    }
}
