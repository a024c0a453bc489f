//! From a registration's body to the command: every mistake is collected, known but unbuilt fields are refused.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use hub_core::control::Registration;
use hub_core::delivery::RetryPolicy;
use hub_core::error::{FieldError, code};
use hub_core::hash::StableHash;
use hub_core::id::{InstanceId, ServiceName};
use hub_core::registry::{
    CheckKind, DeliverySettings, HealthCheck, MAX_INSTANCES, TargetUrl, check_registration,
};
use serde_json::value::RawValue;

use crate::hub::UrlPolicy;
use crate::json::{self, Path, Reader};
use crate::problem::Problem;

type Instance = (InstanceId, Arc<str>, u16);

/// The share of an instance that does not name one.
const DEFAULT_WEIGHT: u16 = 100;

/// Most items of any list; the registry's own limits are lower.
const MAX_ITEMS: usize = 1_000;

/// Reads and checks a registration.
pub(super) fn registration(
    body: &[u8],
    if_revision: Option<u64>,
    fresh_secret: Arc<str>,
    urls: &UrlPolicy,
) -> Result<Registration, Problem> {
    let mut errors = Vec::new();
    let mut reader = json::read_object(body, &mut errors)?;
    let read = read(&mut reader, if_revision, fresh_secret);
    reader.finish();
    if let Some((registration, short)) = &read {
        errors.extend(check_registration(registration));
        refuse_urls(registration, *short, urls, &mut errors);
    }
    match read {
        Some((registration, _)) if errors.is_empty() => Ok(registration),
        _ => Err(Problem::fields(errors)),
    }
}

fn read(
    reader: &mut Reader<'_, '_, '_>,
    if_revision: Option<u64>,
    secret: Arc<str>,
) -> Option<(Registration, bool)> {
    let name = name(reader);
    let short = reader.text("url");
    let is_short = short.is_some();
    let instances = reader.array("instances", MAX_INSTANCES, instance);
    let instances = with_short(reader, short, instances);
    let delivery = reader.object("delivery", delivery).unwrap_or_default();
    let retry = reader.object("retry", retry).unwrap_or_default();
    let health_check = reader.object("health_check", health_check).unwrap_or_default();
    let version = reader.text("version").map(arc);
    let message_types = texts(reader, "message_types");
    let metadata = reader.value("metadata").map(|value| value.get().into());
    let tags = texts(reader, "tags");
    reader.later("breaker");
    reader.later("transactions");
    let registration = Registration {
        name: name?,
        version,
        instances,
        delivery,
        retry,
        health_check,
        message_types,
        metadata,
        tags,
        fresh_secret: secret,
        if_revision,
    };
    Some((registration, is_short))
}

fn name(reader: &mut Reader<'_, '_, '_>) -> Option<ServiceName> {
    let text = reader.required_text("name")?;
    text.parse().map_err(|error: hub_core::id::NameError| reader.invalid("name", error.to_string())).ok()
}

fn with_short(
    reader: &mut Reader<'_, '_, '_>,
    short: Option<Cow<'_, str>>,
    instances: Option<Vec<Instance>>,
) -> Vec<Instance> {
    let Some(url) = short else { return instances.unwrap_or_default() };
    match (&instances, instance_id(&url)) {
        (None, Ok(id)) => return vec![(id, url.into(), DEFAULT_WEIGHT)],
        (None, Err(error)) => reader.invalid("url", error),
        (Some(_), _) => {
            reader.invalid("url", "is the short form for one instance: give `url` or `instances`");
        }
    }
    instances.unwrap_or_default()
}

fn instance(value: &RawValue, path: &Path<'_>, errors: &mut Vec<FieldError>) -> Option<Instance> {
    let mut reader = Reader::new(json::shape_of(value), path, errors);
    let url = reader.required_text("url");
    let id = reader.text("id").map(|text| text.parse::<InstanceId>().map_err(|error| error.to_string()));
    let weight = reader.number("weight", 1, 1_000).and_then(|weight| u16::try_from(weight).ok());
    let id = match (id, &url) {
        (Some(Err(error)), _) => {
            reader.invalid("id", error);
            None
        }
        (Some(Ok(id)), _) => Some(id),
        (None, Some(url)) => instance_id(url).map_err(|error| reader.invalid("url", error)).ok(),
        (None, None) => None,
    };
    reader.finish();
    Some((id?, url?.into(), weight.unwrap_or(DEFAULT_WEIGHT)))
}

/// The id of an instance that names none: the same for the same URL, so that registering again changes nothing.
fn instance_id(url: &str) -> Result<InstanceId, String> {
    let parsed: TargetUrl = url.parse().map_err(|error: hub_core::registry::UrlError| error.to_string())?;
    let normal = parsed.to_string();
    let place = normal.split_once("://").map_or(normal.as_str(), |(_, place)| place);
    let place = place.split_once('/').map_or(place, |(host, _)| host);
    let mut id: String =
        place.chars().map(|char| if matches!(char, ':' | '[' | ']') { '-' } else { char }).collect();
    if !parsed.path.is_empty() || id.len() > 80 {
        id = id.chars().take(80).collect();
        // A string takes all that is written to it.
        let _infallible = write!(id, "-{:016x}", StableHash::default().text(&normal).finish());
    }
    id.trim_start_matches(['-', '.', '_']).parse().map_err(|error: hub_core::id::NameError| error.to_string())
}

fn delivery(mut reader: Reader<'_, '_, '_>) -> DeliverySettings {
    let defaults = DeliverySettings::default();
    match reader.text("mode").as_deref() {
        None | Some("push") => {}
        Some("pull") => reader.later_value("mode"),
        Some(_) => reader.invalid("mode", "must be \"push\""),
    }
    reader.later("rate_per_second");
    let headers = reader.pairs("headers").unwrap_or_default();
    let settings = DeliverySettings {
        path: reader.text("path").map_or(defaults.path, arc),
        timeout_ms: small(&mut reader, "timeout_ms", 100, 300_000).unwrap_or(defaults.timeout_ms),
        max_concurrency: small(&mut reader, "max_concurrency", 1, 200).unwrap_or(defaults.max_concurrency),
        headers: headers
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase().into(), arc(value)))
            .collect(),
        max_age_s: small(&mut reader, "max_age_s", 1, 31_536_000),
    };
    reader.finish();
    settings
}

fn retry(mut reader: Reader<'_, '_, '_>) -> RetryPolicy {
    let defaults = RetryPolicy::default();
    let policy = RetryPolicy {
        base_ms: small(&mut reader, "base_ms", 1, 3_600_000).unwrap_or(defaults.base_ms),
        cap_ms: small(&mut reader, "cap_ms", 1, 86_400_000).unwrap_or(defaults.cap_ms),
        max_retries: small(&mut reader, "max_retries", 0, 100),
        retry_on: reader.typed("retry_on", "an array of status codes").unwrap_or_default(),
    };
    reader.finish();
    policy
}

fn health_check(mut reader: Reader<'_, '_, '_>) -> HealthCheck {
    let defaults = HealthCheck::default();
    let kind = match reader.text("kind").as_deref() {
        None | Some("http") => CheckKind::Http,
        Some("none") => CheckKind::None,
        Some("tcp" | "ttl") => {
            reader.later_value("kind");
            CheckKind::None
        }
        Some(_) => {
            reader.invalid("kind", "must be \"http\" or \"none\"");
            CheckKind::None
        }
    };
    reader.later("deregister_after_s");
    let interval_s = small(&mut reader, "interval_s", 1, 3_600).unwrap_or(defaults.interval_s);
    let check = HealthCheck {
        kind,
        path: reader.text("path").map_or(defaults.path, arc),
        interval_s,
        timeout_s: small(&mut reader, "timeout_s", 1, 60)
            .unwrap_or_else(|| defaults.timeout_s.min(interval_s)),
        healthy: small(&mut reader, "healthy", 1, 100).unwrap_or(defaults.healthy),
        unhealthy: small(&mut reader, "unhealthy", 1, 100).unwrap_or(defaults.unhealthy),
    };
    reader.finish();
    check
}

/// Addresses that are never called are refused at once; those whose form is wrong were reported already.
fn refuse_urls(registration: &Registration, short: bool, urls: &UrlPolicy, errors: &mut Vec<FieldError>) {
    for (at, (_, url, _)) in registration.instances.iter().enumerate() {
        if url.parse::<TargetUrl>().is_err() {
            continue;
        }
        if let Err(reason) = urls(url) {
            let pointer = if short { "/url".to_owned() } else { format!("/instances/{at}/url") };
            errors.push(FieldError { pointer, code: code::URL_REFUSED, detail: reason });
        }
    }
}

fn texts(reader: &mut Reader<'_, '_, '_>, name: &str) -> Vec<Arc<str>> {
    reader.texts(name, MAX_ITEMS).unwrap_or_default().into_iter().map(arc).collect()
}

fn small<T: TryFrom<u64>>(reader: &mut Reader<'_, '_, '_>, name: &str, min: u64, max: u64) -> Option<T> {
    reader.number(name, min, max).and_then(|number| T::try_from(number).ok())
}

fn arc(text: Cow<'_, str>) -> Arc<str> {
    text.into()
}
