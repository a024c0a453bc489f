//! The rates at which messages are taken: of each caller, and for each target.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use hub_core::error::code;
use hub_core::id::ServiceName;
use hub_core::limit::{Ask, Demand, Fate, Key, MOST_PERMITS, Rate, Ruling, Verdict};

use crate::extract::Caller;
use crate::hub::Hub;
use crate::problem::Problem;

/// `RateLimit-Policy`: the limits that the request fell under.
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// `RateLimit`: what is left of them.
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The names of the two limits, in headers and in labels.
const CALLER: &str = "caller";
const TARGET: &str = "target";

/// What the limits say to one request.
#[derive(Debug, Default)]
pub(super) struct Passage {
    headers: HeaderMap,
    /// The targets that take no more, and when they will.
    refused: BTreeMap<ServiceName, Duration>,
}

/// Takes a permit for every message: `targets` says for whom they are. `whole` is for those that stand or fall together.
/// An error refuses them all: the caller's rate does, or that of a target when they are a whole.
pub(super) async fn pass<'a>(
    hub: &Hub,
    caller: &Caller,
    targets: impl Iterator<Item = &'a ServiceName>,
    whole: bool,
) -> Result<Passage, Problem> {
    let rates = &hub.options.rates;
    if rates.caller.is_none() && rates.target.is_none() {
        return Ok(Passage::default());
    }
    let mut counted: BTreeMap<&ServiceName, u32> = BTreeMap::new();
    for target in targets {
        *counted.entry(target).or_default() += 1;
    }
    let total: u32 = counted.values().sum();
    let key = || Key::Caller(caller.0.subject.as_str().into());
    let ask = Ask {
        caller: rates.caller.filter(|_| total > 0).map(|rate| demand(key(), rate, total)),
        targets: rates.target.map_or_else(Vec::new, |rate| {
            let each = counted.iter().map(|(name, permits)| (Key::Target((*name).clone()), *permits));
            each.map(|(key, permits)| demand(key, rate, permits)).collect()
        }),
        whole,
    };
    if ask.is_empty() {
        return Ok(Passage::default());
    }
    // A limit that cannot be counted is no reason to refuse a message.
    match hub.cache.take(&ask).await {
        Ok(verdict) => judge(hub, &ask, &verdict),
        Err(error) => {
            tracing::warn!(%error, "rates are not limited");
            Ok(Passage::default())
        }
    }
}

fn demand(key: Key, rate: Rate, permits: u32) -> Demand {
    Demand { key, rate, permits: permits.min(MOST_PERMITS) }
}

fn judge(hub: &Hub, ask: &Ask, verdict: &Verdict) -> Result<Passage, Problem> {
    let headers = headers(ask, verdict);
    if let (Some(demand), Some(ruling)) = (&ask.caller, &verdict.caller)
        && ruling.fate == Fate::Refused
    {
        hub.metrics.limited(CALLER, demand.permits);
        let detail = format!("this caller sends too fast: {}", told(demand.rate, ruling));
        return Err(problem(CALLER, detail, ruling.wait).headers(headers));
    }
    let mut refused = BTreeMap::new();
    for (demand, ruling) in ask.targets.iter().zip(&verdict.targets) {
        if let Key::Target(name) = &demand.key
            && ruling.fate == Fate::Refused
        {
            hub.metrics.limited(TARGET, demand.permits);
            refused.insert(name.clone(), ruling.wait);
        }
    }
    // The longest wait is that of the whole.
    let last = refused.iter().max_by_key(|(_, wait)| **wait).filter(|_| ask.whole);
    match last {
        Some((name, wait)) => Err(of_target(name, *wait).headers(headers)),
        None => Ok(Passage { headers, refused }),
    }
}

fn told(rate: Rate, ruling: &Ruling) -> String {
    format!("of {} messages in {} s {} are left", rate.burst(), seconds(rate.window()), ruling.left)
}

fn of_target(name: &ServiceName, wait: Duration) -> Problem {
    problem(TARGET, format!("{name} is sent messages too fast"), wait)
}

fn problem(policy: &'static str, detail: String, wait: Duration) -> Problem {
    // Rounded up: who comes back a little too early is refused again.
    let wait = Duration::from_millis(u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX));
    Problem::new(code::RATE_LIMITED, detail).retry_after(wait).violated_policy(policy)
}

impl Passage {
    /// The problem of a message whose target takes no more for now.
    pub(super) fn refuses(&self, target: &ServiceName) -> Option<Problem> {
        self.refused.get(target).map(|wait| of_target(target, *wait))
    }

    /// The answer with what is left of the limits.
    pub(super) fn mark(self, answer: Result<Response, Problem>) -> Result<Response, Problem> {
        match answer {
            Ok(mut response) => {
                response.headers_mut().extend(self.headers);
                Ok(response)
            }
            Err(problem) => Err(problem.headers(self.headers)),
        }
    }
}

/// As the newest draft of the HTTPAPI group writes it. A bucket of permits is a quota in the time that fills it. Of several
/// targets the one with the least left is told.
fn headers(ask: &Ask, verdict: &Verdict) -> HeaderMap {
    let caller = ask.caller.iter().zip(&verdict.caller).map(|pair| (CALLER, pair));
    let scarcest = ask.targets.iter().zip(&verdict.targets).min_by_key(|(_, ruling)| ruling.left);
    let (mut policy, mut limit) = (String::new(), String::new());
    for (name, (demand, ruling)) in caller.chain(scarcest.map(|pair| (TARGET, pair))) {
        let comma = if policy.is_empty() { "" } else { ", " };
        let (quota, window) = (demand.rate.burst(), seconds(demand.rate.window()));
        let _ = write!(policy, "{comma}\"{name}\";q={quota};qu=\"messages\";w={window}");
        let _ = write!(limit, "{comma}\"{name}\";r={};t={}", ruling.left, seconds(ruling.full_in));
    }
    [(POLICY, policy), (LIMIT, limit)]
        .into_iter()
        .filter_map(|(name, text)| Some((name, HeaderValue::from_str(&text).ok()?)))
        .collect()
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
