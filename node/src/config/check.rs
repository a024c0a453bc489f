//! Checks of single ranges and of settings that must fit each other.

use std::time::Duration;

use hub_core::error::code;
use hub_storage::redis::Endpoint;

use super::error::{Problem, Source};
use super::layers::Values;
use super::sections::{Config, Limits, Redis};
use super::value::HostPort;

/// A key shorter than this is refused.
const KEY_BYTES: usize = 32;

/// The largest content that still fits a log entry with everything around it.
const MAX_CONTENT_BYTES: u64 = 3 << 20;

struct Checker<'a> {
    values: &'a Values,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn source(&self, path: &str) -> Source {
        self.values.get(path).map_or(Source::Default, |found| found.source.clone())
    }

    fn require(&mut self, holds: bool, path: &str, detail: &str) {
        if !holds {
            self.problems.push(Problem::new(path, self.source(path), detail));
        }
    }

    fn duration(&mut self, path: &str, value: Duration, least: Duration, most: Duration) {
        let detail = format!(
            "must be between {} and {}",
            humantime::format_duration(least),
            humantime::format_duration(most)
        );
        self.require((least..=most).contains(&value), path, &detail);
    }

    fn count(&mut self, path: &str, value: u64, least: u64, most: u64) {
        let detail = format!("must be between {least} and {most}");
        self.require((least..=most).contains(&value), path, &detail);
    }
}

/// Adds to `problems` what is out of range or does not fit.
pub(super) fn check(config: &Config, values: &Values, problems: &mut Vec<Problem>) {
    let mut checker = Checker { values, problems };
    ranges(config, &mut checker);
    keys(config, &mut checker);
    servers(config, &mut checker);
    broker(config, &mut checker);
    forming(config, &mut checker);
    limits(&config.limits, &mut checker);
    redis(&config.redis, &mut checker);
    log(config, &mut checker);
}

fn ranges(config: &Config, checker: &mut Checker<'_>) {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let second = Duration::from_secs(1);
    let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    checker.duration("node.drain_delay", config.node.drain_delay, Duration::ZERO, 60 * second);
    checker.duration("node.drain_limit", config.node.drain_limit, second, 3600 * second);
    checker.duration("rest.header_timeout", config.rest.header_timeout, second, 300 * second);
    checker.duration("rest.body_timeout", config.rest.body_timeout, second, 3600 * second);
    checker.duration("rest.request_timeout", config.rest.request_timeout, second, 300 * second);
    checker.duration("raft.join_timeout", config.raft.join_timeout, second / 10, DAY);
    checker.duration("raft.remove_dead_after", config.raft.remove_dead_after, Duration::ZERO, 365 * DAY);
    checker.count("rest.max_connections", wide(config.rest.max_connections), 1, 1_000_000);
    checker.count("rest.max_in_flight", wide(config.rest.max_in_flight), 1, 1_000_000);
    checker.count("messages.max_content_bytes", config.messages.max_content_bytes.0, 1, MAX_CONTENT_BYTES);
    checker.duration("messages.max_age", config.messages.max_age, 60 * second, 365 * DAY);
    checker.duration("messages.retention", config.messages.retention, second, 3650 * DAY);
    checker.count("messages.backlog_limit", config.messages.backlog_limit, 1, 1 << 40);
    checker.count("delivery.max_retries", config.delivery.max_retries.into(), 0, 100);
    checker.count("delivery.slots", config.delivery.slots.into(), 4, 100_000);
    checker.count("delivery.health_checks", wide(config.delivery.health_checks), 1, 10_000);
    checker.duration("delivery.connect_timeout", config.delivery.connect_timeout, second / 10, 60 * second);
    checker.count("raft.max_waiting", config.raft.max_waiting.0, 8 << 20, 1 << 40);
}

fn keys(config: &Config, checker: &mut Checker<'_>) {
    let short = format!("must have at least {KEY_BYTES} bytes; make one: openssl rand -base64 48");
    if let Some(key) = &config.auth.secret_key {
        let source = checker.source("auth.secret_key");
        if key.expose().len() < KEY_BYTES {
            let problem = Problem::new("auth.secret_key", source, format!("SECRET_KEY {short}"));
            checker.problems.push(problem.coded(code::NO_KEY));
        }
    }
    if let Some(key) = &config.raft.cluster_key {
        checker.require(key.expose().len() >= KEY_BYTES, "raft.cluster_key", &format!("CLUSTER_KEY {short}"));
    }
    for (setting, file) in [
        ("auth.jwks_file", &config.auth.jwks_file),
        ("delivery.ca_file", &config.delivery.ca_file),
        ("redis.ca_file", &config.redis.ca_file),
    ] {
        let failed = file.as_ref().and_then(|path| Some((path, std::fs::File::open(path).err()?)));
        if let Some((path, error)) = failed {
            checker.require(false, setting, &format!("{} cannot be read: {error}", path.display()));
        }
    }
    if let Some(url) = &config.auth.jwks_url {
        let fit = url::Url::parse(url).is_ok_and(|url| match (url.scheme(), url.host()) {
            ("https", Some(_)) => true,
            ("http", Some(url::Host::Ipv4(ip))) => ip.is_loopback(),
            ("http", Some(url::Host::Ipv6(ip))) => ip.is_loopback(),
            ("http", Some(url::Host::Domain(name))) => name == "localhost",
            _ => false,
        });
        let detail = "must be an https URL (http only on loopback: who can change the keys can be anybody)";
        checker.require(fit, "auth.jwks_url", detail);
    }
    if let Some(url) = &config.rest.advertise {
        let fit = url::Url::parse(url).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none()
        });
        checker.require(fit, "rest.advertise", "must be a URL such as http://hub-1:8200");
    }
}

/// Only the scheme: what the driver makes of the rest is said at the start, without the password.
fn servers(config: &Config, checker: &mut Checker<'_>) {
    checker.count("postgres.connections", config.postgres.connections.into(), 4, 1_000);
    if let Some(url) = &config.postgres.url {
        let fit = ["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme));
        checker.require(
            fit,
            "postgres.url",
            "must be a URL such as postgres://user:password@host:5432/database",
        );
    }
}

fn broker(config: &Config, checker: &mut Checker<'_>) {
    let Some(url) = &config.rabbitmq.url else { return };
    let fit = ["amqp://", "amqps://"].iter().any(|scheme| url.expose().starts_with(scheme));
    checker.require(fit, "rabbitmq.url", "must be a URL such as amqp://user:password@host:5672/vhost");
    let stored = config.postgres.url.is_some();
    checker.require(
        stored,
        "rabbitmq.url",
        "needs postgres.url (DATABASE_URL): the messages stay in the database",
    );
}

fn forming(config: &Config, checker: &mut Checker<'_>) {
    let raft = &config.raft;
    let expect = usize::from(raft.expect);
    checker.require(
        raft.join.is_empty() || expect == 0,
        "raft.join",
        "does not go with raft.expect: join a cluster, or form one",
    );
    checker.require(expect == 0 || !raft.peers.is_empty(), "raft.expect", "needs raft.peers");
    checker.require(raft.peers.is_empty() || expect > 0, "raft.peers", "needs raft.expect");
    checker.require(
        raft.peers.len() <= 1 || expect == 0 || raft.peers.len() == expect,
        "raft.peers",
        "must name as many nodes as raft.expect says, or be one name that resolves to all",
    );
    if !raft.plain_peers {
        let exposed = "is not a loopback address, and traffic between nodes is not encrypted: use a private network \
                       and say so with --plain-peers";
        if !raft.listen.ip().is_loopback() {
            let problem = Problem::new("raft.listen", checker.source("raft.listen"), exposed);
            checker.problems.push(problem.coded(code::PLAIN_PEERS));
        }
        let foreign = |peers: &[HostPort]| peers.iter().any(|peer| !is_loopback(peer));
        for (path, peers) in [("raft.join", &raft.join), ("raft.peers", &raft.peers)] {
            if foreign(peers) {
                let problem =
                    Problem::new(path, checker.source(path), format!("names a peer that {exposed}"));
                checker.problems.push(problem.coded(code::PLAIN_PEERS));
            }
        }
    }
}

/// Certainly this machine: a loopback address, or `localhost`.
fn is_loopback(peer: &HostPort) -> bool {
    peer.host == "localhost" || peer.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn limits(limits: &Limits, checker: &mut Checker<'_>) {
    const MOST: u64 = 1_000_000;
    for (whose, per_second, burst) in [
        ("caller", limits.caller_per_second, limits.caller_burst),
        ("target", limits.target_per_second, limits.target_burst),
    ] {
        let path = |what: &str| format!("limits.{whose}_{what}");
        checker.count(&path("per_second"), per_second.into(), 0, MOST);
        checker.count(&path("burst"), burst.into(), 0, MOST);
        let needs = format!("needs {}", path("per_second"));
        checker.require(burst == 0 || per_second > 0, &path("burst"), &needs);
    }
}

fn redis(redis: &Redis, checker: &mut Checker<'_>) {
    let milli = Duration::from_millis(1);
    checker.duration("redis.timeout", redis.timeout, milli, 5_000 * milli);
    let fit = (1..=100).contains(&redis.prefix.len())
        && redis.prefix.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}'));
    checker.require(fit, "redis.prefix", "must be 1 to 100 visible ASCII characters other than { and }");
    let endpoint = redis.url.as_ref().map(|url| Endpoint::parse(url.expose()));
    if let Some(Err(error)) = &endpoint {
        checker.require(false, "redis.url", &error.to_string());
    }
    let is_tls = endpoint.is_some_and(|endpoint| endpoint.is_ok_and(|endpoint| endpoint.is_tls()));
    checker.require(redis.ca_file.is_none() || is_tls, "redis.ca_file", "needs a redis.url of rediss://");
}

fn log(config: &Config, checker: &mut Checker<'_>) {
    let parsed = crate::telemetry::filter(&config.log.level);
    let detail = parsed.as_ref().err().map(ToString::to_string).unwrap_or_default();
    checker.require(
        parsed.is_ok(),
        "log.level",
        &format!("must be error, warn, info, debug or trace: {detail}"),
    );
}
