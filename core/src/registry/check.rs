//! What a registration may say. The edge calls this to report every bad field; `apply` calls it again on every replica,
//! so nothing here may depend on configuration, locale or the version of a library.

use std::collections::BTreeSet;

use super::url::is_plain_path;
use super::{CheckKind, DeliverySettings, HealthCheck, TargetUrl};
use crate::control::Registration;
use crate::delivery::RetryPolicy;
use crate::error::FieldError;
use crate::json::{self, Top};

/// Most services of a cluster.
pub const MAX_SERVICES: usize = 10_000;
/// Most instances of a service.
pub const MAX_INSTANCES: usize = 1_000;
/// Largest metadata of a service in bytes.
pub const MAX_METADATA_BYTES: usize = 16 << 10;
const MAX_METADATA_ENTRIES: usize = 64;
const MAX_METADATA_DEPTH: usize = 128;
const MAX_HEADERS: usize = 32;
const MAX_HEADER_VALUE: usize = 1_024;
const MAX_MESSAGE_TYPES: usize = 100;
const MAX_TAGS: usize = 50;
const MAX_RETRY_ON: usize = 64;
const MAX_PATH: usize = 1_024;

/// Headers that belong to the connection, to the body, or to the hub itself.
const RESERVED_HEADERS: [&str; 19] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "idempotency-key",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
];
const RESERVED_HEADER_PREFIXES: [&str; 3] = ["ce-", "hub-", "webhook-"];

/// Every bad field of a registration; empty if it is good.
#[must_use]
pub fn check_registration(registration: &Registration) -> Vec<FieldError> {
    let mut bad = Vec::new();
    if let Some(version) = &registration.version {
        check_text(&mut bad, "/version", version);
    }
    check_instances(&mut bad, registration);
    check_delivery(&mut bad, &registration.delivery);
    check_retry(&mut bad, &registration.retry);
    check_health(&mut bad, &registration.health_check);
    check_list(&mut bad, "/message_types", &registration.message_types, MAX_MESSAGE_TYPES);
    check_list(&mut bad, "/tags", &registration.tags, MAX_TAGS);
    if let Some(metadata) = &registration.metadata {
        check_metadata(&mut bad, metadata);
    }
    if let Some(error) = check_secret(&registration.fresh_secret) {
        bad.push(error);
    }
    bad
}

/// What is wrong with a signing secret, if anything. The edge makes them, so a bad one is a fault of a node.
#[must_use]
pub fn check_secret(secret: &str) -> Option<FieldError> {
    let good = secret.strip_prefix("whsec_").is_some_and(|key| {
        (24..=128).contains(&key.len())
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
    });
    (!good).then(|| FieldError::invalid("/secret", "must be whsec_ and 24 to 128 characters of base64"))
}

/// True for 1 to 100 characters without control characters: message types, tags, versions.
#[must_use]
pub fn is_short_text(text: &str) -> bool {
    (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

fn range<T: PartialOrd + std::fmt::Display>(
    bad: &mut Vec<FieldError>,
    pointer: &str,
    value: T,
    min: T,
    max: T,
) {
    if value < min || value > max {
        bad.push(FieldError::invalid(pointer, format!("must be {min} to {max}")));
    }
}

fn check_text(bad: &mut Vec<FieldError>, pointer: &str, text: &str) {
    if !is_short_text(text) {
        bad.push(FieldError::invalid(
            pointer,
            "must be 1 to 100 characters, none of them a control character",
        ));
    }
}

fn check_list<T: AsRef<str>>(bad: &mut Vec<FieldError>, pointer: &str, items: &[T], most: usize) {
    if items.len() > most {
        bad.push(FieldError::invalid(pointer, format!("must have at most {most} entries")));
        return;
    }
    let mut seen = BTreeSet::new();
    for (position, item) in items.iter().enumerate() {
        let pointer = format!("{pointer}/{position}");
        check_text(bad, &pointer, item.as_ref());
        if !seen.insert(item.as_ref()) {
            bad.push(FieldError::invalid(pointer, "is there twice"));
        }
    }
}

fn check_instances(bad: &mut Vec<FieldError>, registration: &Registration) {
    if registration.instances.len() > MAX_INSTANCES {
        let detail = format!("must have at most {MAX_INSTANCES} entries");
        bad.push(FieldError::invalid("/instances", detail));
        return;
    }
    let mut seen = BTreeSet::new();
    for (position, (id, url, weight)) in registration.instances.iter().enumerate() {
        if !seen.insert(id) {
            bad.push(FieldError::invalid(format!("/instances/{position}/id"), "is there twice"));
        }
        if let Err(error) = url.parse::<TargetUrl>() {
            bad.push(FieldError::invalid(format!("/instances/{position}/url"), error.to_string()));
        }
        range(bad, &format!("/instances/{position}/weight"), *weight, 1, 1_000);
    }
}

fn check_path(bad: &mut Vec<FieldError>, pointer: &str, path: &str) {
    if !path.starts_with('/') || path.len() > MAX_PATH || !is_plain_path(path) {
        let detail = "must start with '/' and be a plain path of at most 1024 characters, without a query";
        bad.push(FieldError::invalid(pointer, detail));
    }
}

fn check_delivery(bad: &mut Vec<FieldError>, delivery: &DeliverySettings) {
    check_path(bad, "/delivery/path", &delivery.path);
    range(bad, "/delivery/timeout_ms", delivery.timeout_ms, 100, 300_000);
    range(bad, "/delivery/max_concurrency", delivery.max_concurrency, 1, 200);
    if let Some(seconds) = delivery.max_age_s {
        range(bad, "/delivery/max_age_s", seconds, 1, 31_536_000);
    }
    if delivery.headers.len() > MAX_HEADERS {
        let detail = format!("must have at most {MAX_HEADERS} entries");
        bad.push(FieldError::invalid("/delivery/headers", detail));
        return;
    }
    let mut seen = BTreeSet::new();
    for (name, value) in &delivery.headers {
        let twice = !seen.insert(name);
        let problem = header_problem(name, value).or_else(|| twice.then_some("is there twice"));
        if let Some(problem) = problem {
            let pointer = format!("/delivery/headers{}", json::pointer(name));
            bad.push(FieldError::invalid(pointer, problem));
        }
    }
}

fn header_problem(name: &str, value: &str) -> Option<&'static str> {
    let is_token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !(1..=100).contains(&name.len()) || !name.bytes().all(is_token) {
        return Some("must be named by 1 to 100 characters of a lower-case HTTP token");
    }
    let prefixed = RESERVED_HEADER_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if prefixed || RESERVED_HEADERS.contains(&name) {
        return Some("is a header that message-hub sets itself");
    }
    let visible = value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    if value.len() > MAX_HEADER_VALUE || !visible || value.trim() != value {
        return Some("must have a value of at most 1024 visible ASCII characters, no spaces at its ends");
    }
    None
}

fn check_retry(bad: &mut Vec<FieldError>, retry: &RetryPolicy) {
    range(bad, "/retry/base_ms", retry.base_ms, 1, 3_600_000);
    range(bad, "/retry/cap_ms", retry.cap_ms, 1, 86_400_000);
    if retry.cap_ms < retry.base_ms {
        bad.push(FieldError::invalid("/retry/cap_ms", "must not be less than base_ms"));
    }
    if let Some(most) = retry.max_retries {
        range(bad, "/retry/max_retries", most, 0, 100);
    }
    if retry.retry_on.len() > MAX_RETRY_ON {
        let detail = format!("must have at most {MAX_RETRY_ON} entries");
        bad.push(FieldError::invalid("/retry/retry_on", detail));
        return;
    }
    for (position, status) in retry.retry_on.iter().enumerate() {
        range(bad, &format!("/retry/retry_on/{position}"), *status, 300, 499);
    }
}

fn check_health(bad: &mut Vec<FieldError>, check: &HealthCheck) {
    if check.kind == CheckKind::Http {
        check_path(bad, "/health_check/path", &check.path);
    } else if check.path.len() > MAX_PATH {
        bad.push(FieldError::invalid("/health_check/path", "must be at most 1024 characters"));
    }
    range(bad, "/health_check/interval_s", check.interval_s, 1, 3_600);
    range(bad, "/health_check/timeout_s", check.timeout_s, 1, 60);
    if check.timeout_s > check.interval_s {
        bad.push(FieldError::invalid("/health_check/timeout_s", "must not be more than interval_s"));
    }
    range(bad, "/health_check/healthy", check.healthy, 1, 100);
    range(bad, "/health_check/unhealthy", check.unhealthy, 1, 100);
}

fn check_metadata(bad: &mut Vec<FieldError>, metadata: &str) {
    if metadata.len() > MAX_METADATA_BYTES {
        let detail = format!("must be at most {MAX_METADATA_BYTES} bytes");
        bad.push(FieldError::too_large("/metadata", detail));
        return;
    }
    match json::scan(metadata, MAX_METADATA_DEPTH) {
        Err(error) => bad.push(FieldError::invalid("/metadata", error.to_string())),
        Ok(shape) if shape.top != Top::Object => {
            bad.push(FieldError::invalid("/metadata", "must be an object"));
        }
        Ok(shape) if shape.members.len() > MAX_METADATA_ENTRIES => {
            let detail = format!("must have at most {MAX_METADATA_ENTRIES} entries");
            bad.push(FieldError::invalid("/metadata", detail));
        }
        Ok(_) => {}
    }
}
