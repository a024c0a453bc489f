//! `services`: who takes messages, where, and how they fare.

use std::collections::BTreeMap;

use clap::Subcommand;
use hub_core::id::{InstanceId, ServiceName};
use serde::Serialize;
use url::Url;

use super::args::{ClientArgs, text_or_file};
use super::messages::Page;
use super::output::{self, Column};
use super::{Exit, Failure, schedule};
use crate::client::{Call, push_query, segment};

/// Register services and see how they fare.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Register a service, or change it; shows its signing secret once.
    Register(Box<Register>),
    /// List services.
    List {
        /// Only with this tag.
        #[arg(long)]
        tag: Option<String>,
        /// Only with this status.
        #[arg(long)]
        status: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Show a service and its instances.
    Get(Name),
    /// Remove a service, or one instance of it.
    Deregister {
        #[command(flatten)]
        service: Name,
        /// Only this instance.
        #[arg(long, value_name = "ID", conflicts_with = "drain")]
        instance: Option<InstanceId>,
        /// Wait until its backlog is delivered.
        #[arg(long)]
        drain: bool,
    },
    /// Stop deliveries to a service; its messages wait.
    Pause(Name),
    /// Deliver to a paused service again.
    Resume(Name),
    /// Send a test message, wait for it, and show what the service answered.
    Test(Name),
    /// Show the health of one service, or of all.
    Health {
        /// The service; all if none is given.
        name: Option<ServiceName>,
        /// Where the page before ended.
        #[arg(long, conflicts_with = "name")]
        cursor: Option<String>,
    },
    /// Show where deliveries to a service go at the moment.
    Routes(Name),
    /// Show how many messages wait for a service, and since when.
    Backlog(Name),
}

#[derive(Debug, clap::Args)]
struct Name {
    /// The service.
    name: ServiceName,
}

/// Register a service, or change it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  message-hub services register demo http://10.0.0.5:9000\n  message-hub services \
register --file demo.json"
)]
struct Register {
    /// Its name.
    #[arg(required_unless_present = "file")]
    name: Option<ServiceName>,
    /// The base URL of each instance.
    #[arg(value_name = "ADDRESS", required_unless_present = "file")]
    addresses: Vec<Url>,
    /// The whole registration as JSON; - reads standard input.
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["name", "addresses", "path", "attempt_timeout", "types", "tags",
        "health_path", "max_concurrency"])]
    file: Option<String>,
    /// Path of deliveries [default: /messages].
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Until an attempt counts as unanswered, whole seconds [default: 10s].
    #[arg(long, value_parser = schedule::seconds, value_name = "DURATION")]
    attempt_timeout: Option<u64>,
    /// Deliveries at a time on one node, 1 to 200 [default: 10].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=200), value_name = "N")]
    max_concurrency: Option<u16>,
    /// Check instances by GET of this path.
    #[arg(long, value_name = "PATH")]
    health_path: Option<String>,
    /// Takes only this type of message; repeat for more.
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// A tag for filters; repeat for more.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Only if it is still at this revision.
    #[arg(long, value_name = "REVISION")]
    if_match: Option<u64>,
}

#[derive(Serialize)]
struct Body<'a> {
    name: Option<&'a ServiceName>,
    instances: Vec<BTreeMap<&'static str, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<Delivery<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_check: Option<BTreeMap<&'static str, &'a str>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    message_types: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tags: &'a [String],
}

#[derive(Serialize)]
struct Delivery<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_concurrency: Option<u16>,
}

const LIST: &[Column] = &[
    ("NAME", "/name"),
    ("STATUS", "/status"),
    ("VERSION", "/version"),
    ("PAUSED", "/paused"),
    ("TAGS", "/tags"),
    ("REVISION", "/revision"),
];

const ITEM: &[Column] = &[
    ("name", "/name"),
    ("status", "/status"),
    ("version", "/version"),
    ("paused", "/paused"),
    ("delivery", "/delivery"),
    ("retry", "/retry"),
    ("health check", "/health_check"),
    ("message types", "/message_types"),
    ("tags", "/tags"),
    ("metadata", "/metadata"),
    ("revision", "/revision"),
    ("created", "/created_at"),
    ("updated", "/updated_at"),
];

const INSTANCES: &[Column] = &[
    ("INSTANCE", "/id"),
    ("URL", "/url"),
    ("WEIGHT", "/weight"),
    ("HEALTH", "/health"),
    ("SINCE", "/health_since"),
    ("MAINTENANCE", "/maintenance"),
];

const HEALTH: &[Column] = &[("service", "/service"), ("status", "/status"), ("protected", "/protected")];

const CHECKS: &[Column] = &[
    ("INSTANCE", "/id"),
    ("URL", "/url"),
    ("HEALTH", "/health"),
    ("SINCE", "/health_since"),
    ("MAINTENANCE", "/maintenance"),
    ("CHECKED BY", "/checked_by"),
    ("LAST CHECK", "/last_check/at"),
    ("RESULT", "/last_check/detail"),
];

const HEALTH_LIST: &[Column] =
    &[("SERVICE", "/service"), ("STATUS", "/status"), ("AVAILABLE", "/available"), ("INSTANCES", "/total")];

const ROUTE: &[Column] = &[("service", "/service"), ("protected", "/protected")];

const ROUTES: &[Column] =
    &[("INSTANCE", "/id"), ("URL", "/url"), ("WEIGHT", "/weight"), ("HEALTH", "/health")];

const BACKLOG: &[Column] = &[
    ("service", "/service"),
    ("open", "/depth"),
    ("in flight", "/in_flight"),
    ("oldest", "/oldest"),
    ("oldest age (s)", "/oldest_age_s"),
    ("accepted", "/accepted_total"),
    ("delivered", "/delivered_total"),
    ("dead letters", "/dead_letters"),
];

const TEST: &[Column] = &[
    ("message", "/message_id"),
    ("status", "/status"),
    ("error", "/error"),
    ("instance", "/attempt/instance"),
    ("outcome", "/attempt/outcome"),
    ("HTTP status", "/attempt/http_status"),
    ("error class", "/attempt/error_class"),
    ("took (ms)", "/attempt/duration_ms"),
    ("response", "/attempt/response"),
];

const BASE: &str = "/api/v1/services";

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.client.client()?;
    let output = args.client.output();
    let call = call(&args.command)?;
    let answer = client.send(call).await?;
    match &args.command {
        Command::Register(_) => {
            let columns = [("service", "/service/name"), ("revision", "/revision"), ("secret", "/secret")];
            output.item(&answer.body, &columns)?;
            if answer.json::<serde_json::Value>()?.get("secret").is_some_and(|secret| !secret.is_null()) {
                output::note("the secret signs deliveries; it is shown only now");
            }
            Ok(())
        }
        Command::List { .. } => output.page(&answer.body, LIST),
        Command::Get(_) => with_part(output, &answer.body, ITEM, "/instances", INSTANCES),
        Command::Health { name: None, .. } => output.page(&answer.body, HEALTH_LIST),
        Command::Health { name: Some(_), .. } => {
            with_part(output, &answer.body, HEALTH, "/instances", CHECKS)
        }
        Command::Routes(_) => with_part(output, &answer.body, ROUTE, "/instances", ROUTES),
        Command::Test(_) => {
            output.item(&answer.body, TEST)?;
            let status = answer.json::<serde_json::Value>()?;
            let delivered = status.get("status").and_then(serde_json::Value::as_str) == Some("delivered");
            if delivered { Ok(()) } else { Err(Failure::Told(Exit::Failed)) }
        }
        Command::Backlog(_) => output.item(&answer.body, BACKLOG),
        Command::Deregister { .. } | Command::Pause(_) | Command::Resume(_) => {
            if answer.body.is_empty() {
                output::note("done");
                Ok(())
            } else {
                output.item(&answer.body, ITEM)
            }
        }
    }
}

fn with_part(
    output: super::Output,
    body: &bytes::Bytes,
    item: &[Column],
    list: &str,
    columns: &[Column],
) -> Result<(), Failure> {
    output.item(body, item)?;
    if output.is_table() {
        output.part(body, list, columns)?;
    }
    Ok(())
}

fn call(command: &Command) -> Result<Call, Failure> {
    let of = |name: &ServiceName, rest: &str| format!("{BASE}/{}{rest}", segment(name.as_str()));
    Ok(match command {
        Command::Register(args) => {
            Call::post(format!("{BASE}/register")).json(registration(args)?).if_match(args.if_match)
        }
        Command::List { tag, status, page } => {
            let mut path = BASE.to_owned();
            for (name, value) in [("tag", tag), ("status", status)] {
                if let Some(value) = value {
                    push_query(&mut path, name, value);
                }
            }
            page.push(&mut path);
            Call::get(path)
        }
        Command::Get(service) => Call::get(of(&service.name, "")),
        Command::Deregister { service, instance: Some(instance), .. } => {
            Call::delete(of(&service.name, &format!("/instances/{}", segment(instance.as_str()))))
        }
        Command::Deregister { service, drain, .. } => {
            Call::delete(of(&service.name, if *drain { "?drain=true" } else { "" }))
        }
        Command::Pause(service) => Call::put(of(&service.name, "/pause")),
        Command::Resume(service) => Call::put(of(&service.name, "/resume")),
        Command::Test(service) => Call::post(of(&service.name, "/test")),
        Command::Health { name: Some(name), .. } => Call::get(of(name, "/health")),
        Command::Health { name: None, cursor } => {
            let mut path = format!("{BASE}/health");
            if let Some(cursor) = cursor {
                push_query(&mut path, "cursor", cursor);
            }
            Call::get(path)
        }
        Command::Routes(service) => Call::get(of(&service.name, "/routes")),
        Command::Backlog(service) => Call::get(of(&service.name, "/backlog")),
    })
}

fn registration(args: &Register) -> Result<String, Failure> {
    if let Some(file) = &args.file {
        let source = if file == "-" { file.clone() } else { format!("@{file}") };
        let text = text_or_file(&source)?;
        let _: &serde_json::value::RawValue = serde_json::from_str(&text)
            .map_err(|error| Failure::Usage(format!("{file} is not JSON: {error}")))?;
        return Ok(text);
    }
    let delivery = Delivery {
        path: args.path.as_deref(),
        timeout_ms: args.attempt_timeout.map(|seconds| seconds.saturating_mul(1000)),
        max_concurrency: args.max_concurrency,
    };
    let wanted =
        delivery.path.is_some() || delivery.timeout_ms.is_some() || delivery.max_concurrency.is_some();
    let body = Body {
        name: args.name.as_ref(),
        instances: args.addresses.iter().map(|url| BTreeMap::from([("url", url.to_string())])).collect(),
        delivery: wanted.then_some(delivery),
        health_check: args
            .health_path
            .as_deref()
            .map(|path| BTreeMap::from([("kind", "http"), ("path", path)])),
        message_types: &args.types,
        tags: &args.tags,
    };
    serde_json::to_string(&body).map_err(Failure::failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(line: &[&str]) -> Call {
        let line = Line::try_parse_from(std::iter::once(&"x").chain(line)).unwrap();
        call(&line.args.command).unwrap()
    }

    #[test]
    fn the_short_form_is_enough() {
        let call = parsed(&["register", "demo", "http://10.0.0.5:9000"]);
        assert_eq!(call.path, "/api/v1/services/register");
        assert_eq!(
            call.body.unwrap(),
            "{\"name\":\"demo\",\"instances\":[{\"url\":\"http://10.0.0.5:9000/\"}]}"
        );
    }

    #[test]
    fn the_long_form_says_all() {
        let call = parsed(&[
            "register",
            "demo",
            "http://a:1",
            "http://b:1",
            "--path",
            "/in",
            "--attempt-timeout",
            "2s",
            "--max-concurrency",
            "20",
            "--health-path",
            "/up",
            "--type",
            "t",
            "--tag",
            "x",
            "--if-match",
            "7",
        ]);
        assert_eq!(call.if_match.as_deref(), Some("7"));
        let body: serde_json::Value = serde_json::from_slice(&call.body.unwrap()).unwrap();
        assert_eq!(body["instances"][1]["url"], "http://b:1/");
        assert_eq!(
            body["delivery"],
            serde_json::json!({"path": "/in", "timeout_ms": 2000, "max_concurrency": 20})
        );
        assert_eq!(body["health_check"], serde_json::json!({"kind": "http", "path": "/up"}));
    }

    #[test]
    fn each_command_has_its_call() {
        let cases = [
            (vec!["list", "--tag", "a"], "GET /api/v1/services?tag=a&limit=50"),
            (vec!["list", "--cursor", "b"], "GET /api/v1/services?limit=50&cursor=b"),
            (vec!["get", "a"], "GET /api/v1/services/a"),
            (vec!["deregister", "a", "--drain"], "DELETE /api/v1/services/a?drain=true"),
            (vec!["deregister", "a", "--instance", "i-1"], "DELETE /api/v1/services/a/instances/i-1"),
            (vec!["pause", "a"], "PUT /api/v1/services/a/pause"),
            (vec!["resume", "a"], "PUT /api/v1/services/a/resume"),
            (vec!["test", "a"], "POST /api/v1/services/a/test"),
            (vec!["health", "a"], "GET /api/v1/services/a/health"),
            (vec!["health"], "GET /api/v1/services/health"),
            (vec!["health", "--cursor", "b"], "GET /api/v1/services/health?cursor=b"),
            (vec!["routes", "a"], "GET /api/v1/services/a/routes"),
            (vec!["backlog", "a"], "GET /api/v1/services/a/backlog"),
        ];
        for (line, wanted) in cases {
            let call = parsed(&line);
            assert_eq!(format!("{} {}", call.method, call.path), wanted);
        }
    }
}
