//! `messages`: send, look up, list, cancel.

use clap::Subcommand;
use hub_core::id::{MessageId, ServiceName};
use hub_core::time::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::args::{ClientArgs, json_text};
use super::output::Column;
use super::{Failure, schedule, token};
use crate::client::{Call, push_query};

/// Send, look up, list and cancel messages.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send one message.
    Send(Box<Send>),
    /// Show a message and its attempts.
    Get {
        /// The message.
        id: MessageId,
    },
    /// List messages, newest first.
    List(Box<List>),
    /// Cancel a message that is not yet under way.
    Cancel {
        /// The message.
        id: MessageId,
    },
}

/// Send one message.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: message-hub messages send --target demo --type greeting --content '{\"text\":\"hello\"}'"
)]
struct Send {
    /// The service that shall get it.
    #[arg(long, value_name = "SERVICE")]
    target: ServiceName,
    /// What kind of message it is, e.g. character.created.
    #[arg(long = "type", value_name = "TYPE")]
    message_type: String,
    /// JSON; @FILE reads a file, - reads standard input.
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    content: String,
    /// Who sends [default: the token's service].
    #[arg(long, value_name = "SERVICE")]
    sender: Option<ServiceName>,
    /// A JSON object; @FILE reads a file.
    #[arg(long, value_name = "JSON|@FILE")]
    metadata: Option<String>,
    /// 0 to 9, higher first [default: 4].
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=9), value_name = "N")]
    priority: Option<u8>,
    /// Deliver so long from now, e.g. 15m.
    #[arg(long, value_parser = schedule::seconds, value_name = "DURATION", conflicts_with = "deliver_at")]
    delay: Option<u64>,
    /// Deliver not before this moment (RFC 3339).
    #[arg(long, value_parser = schedule::moment, value_name = "TIME")]
    deliver_at: Option<Timestamp>,
    /// No attempt later than so long from now.
    #[arg(long, value_parser = schedule::seconds, value_name = "DURATION", conflicts_with = "expires_at")]
    ttl: Option<u64>,
    /// No attempt after this moment (RFC 3339).
    #[arg(long, value_parser = schedule::moment, value_name = "TIME")]
    expires_at: Option<Timestamp>,
    /// Retries after the first attempt, 0 to 100.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100), value_name = "N")]
    max_retries: Option<u8>,
    /// Repeat a request with the same key, and it is done once [default: a new one].
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Accept also for a service that is not registered; the message waits for it.
    #[arg(long)]
    allow_unregistered: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    sender_service: &'a str,
    target_service: &'a ServiceName,
    message_type: &'a str,
    content: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_retries: Option<u8>,
}

/// List messages.
#[derive(Debug, clap::Args)]
struct List {
    /// Only of this status: held, pending, delivering, delivered, retrying, dead_letter, cancelled, expired, discarded.
    #[arg(long)]
    status: Option<String>,
    /// Only for this service.
    #[arg(long, value_name = "SERVICE")]
    target: Option<ServiceName>,
    /// Only from this service.
    #[arg(long, value_name = "SERVICE")]
    sender: Option<ServiceName>,
    /// Only of this type.
    #[arg(long = "type", value_name = "TYPE")]
    message_type: Option<String>,
    /// Only with this `metadata.correlation_id`.
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// Only created after this moment (RFC 3339).
    #[arg(long, value_parser = schedule::moment, value_name = "TIME")]
    created_after: Option<Timestamp>,
    /// Only created before this moment (RFC 3339).
    #[arg(long, value_parser = schedule::moment, value_name = "TIME")]
    created_before: Option<Timestamp>,
    #[command(flatten)]
    page: Page,
}

/// Which page of a list.
#[derive(Debug, clap::Args)]
pub(super) struct Page {
    /// Most items, up to 500.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500), value_name = "N")]
    limit: u16,
    /// Where the page before ended.
    #[arg(long)]
    cursor: Option<String>,
}

impl Page {
    /// Adds it to a path.
    pub(super) fn push(&self, path: &mut String) {
        push_query(path, "limit", &self.limit.to_string());
        if let Some(cursor) = &self.cursor {
            push_query(path, "cursor", cursor);
        }
    }
}

const LIST: &[Column] = &[
    ("ID", "/id"),
    ("FROM", "/sender_service"),
    ("TO", "/target_service"),
    ("TYPE", "/message_type"),
    ("STATUS", "/status"),
    ("RETRIES", "/retry_count"),
    ("CREATED", "/created_at"),
];

/// The lines of one message.
pub(super) const ITEM: &[Column] = &[
    ("id", "/id"),
    ("status", "/status"),
    ("from", "/sender_service"),
    ("to", "/target_service"),
    ("type", "/message_type"),
    ("content", "/content"),
    ("metadata", "/metadata"),
    ("priority", "/priority"),
    ("retries", "/retry_count"),
    ("created", "/created_at"),
    ("deliver at", "/deliver_at"),
    ("expires", "/expires_at"),
    ("next attempt", "/retry_at"),
    ("processed", "/processed_at"),
    ("reason", "/reason"),
    ("dead since", "/dead_at"),
    ("error", "/error_message"),
];

/// The columns of its attempts.
const ATTEMPTS: &[Column] = &[
    ("ATTEMPT", "/number"),
    ("NODE", "/node"),
    ("INSTANCE", "/instance"),
    ("STARTED", "/started_at"),
    ("MS", "/duration_ms"),
    ("OUTCOME", "/outcome"),
    ("HTTP", "/http_status"),
    ("ERROR", "/error_class"),
];

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.client.client()?;
    let output = args.client.output();
    match args.command {
        Command::Send(message) => {
            let call = send(&message, args.client.token().and_then(token::subject))?;
            let answer = client.send(call).await?;
            if answer.header("idempotent-replayed") == Some("true") {
                super::output::note("this request was done before: the first answer again");
            }
            output.item(&answer.body, &[("id", "/id"), ("status", "/status"), ("created", "/created_at")])
        }
        Command::Get { id } => {
            let answer = client.send(Call::get(format!("/api/v1/messages/{id}"))).await?;
            show(output, &answer.body)
        }
        Command::List(filter) => output.page(&client.send(Call::get(list(&filter))).await?.body, LIST),
        Command::Cancel { id } => {
            let answer = client.send(Call::delete(format!("/api/v1/messages/{id}"))).await?;
            let columns = [("id", "/id"), ("status", "/status"), ("may have arrived", "/may_have_arrived")];
            output.item(&answer.body, &columns)
        }
    }
}

/// A message with its attempts.
pub(super) fn show(output: super::Output, body: &bytes::Bytes) -> Result<(), Failure> {
    output.item(body, ITEM)?;
    if output.is_table() {
        output.part(body, "/attempts", ATTEMPTS)?;
    }
    Ok(())
}

fn send(message: &Send, subject: Option<String>) -> Result<Call, Failure> {
    let sender = message.sender.as_ref().map(ToString::to_string).or(subject);
    let Some(sender) = sender else {
        return Err(Failure::Usage("who sends? give --sender, or a token that names a service".to_owned()));
    };
    let content = json_text("--content", &message.content)?;
    let metadata = message.metadata.as_deref().map(|text| json_text("--metadata", text)).transpose()?;
    let body = Body {
        sender_service: &sender,
        target_service: &message.target,
        message_type: &message.message_type,
        content: &content,
        metadata: metadata.as_deref(),
        priority: message.priority,
        delay_seconds: message.delay,
        deliver_at: message.deliver_at,
        ttl_seconds: message.ttl,
        expires_at: message.expires_at,
        max_retries: message.max_retries,
    };
    let mut path = "/api/v1/messages".to_owned();
    if message.allow_unregistered {
        push_query(&mut path, "allow_unregistered", "true");
    }
    let text = serde_json::to_string(&body).map_err(Failure::failed)?;
    Ok(Call::post(path).json(text).key(message.idempotency_key.clone()))
}

fn list(filter: &List) -> String {
    let mut path = "/api/v1/messages".to_owned();
    let fields = [
        ("status", filter.status.clone()),
        ("target_service", filter.target.as_ref().map(ToString::to_string)),
        ("sender_service", filter.sender.as_ref().map(ToString::to_string)),
        ("message_type", filter.message_type.clone()),
        ("correlation_id", filter.correlation_id.clone()),
        ("created_after", filter.created_after.map(|time| time.to_string())),
        ("created_before", filter.created_before.map(|time| time.to_string())),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            push_query(&mut path, name, &value);
        }
    }
    filter.page.push(&mut path);
    path
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

    fn parse(line: &[&str]) -> Result<Args, clap::Error> {
        Line::try_parse_from(std::iter::once(&"x").chain(line)).map(|line| line.args)
    }

    #[test]
    fn a_message_is_written_as_it_was_given() {
        let args = parse(&[
            "send",
            "--target",
            "demo",
            "--type",
            "a.b",
            "--content",
            "{\"z\":1.0,\"a\":[ ]}",
            "--delay",
            "2m",
            "--priority",
            "9",
            "--idempotency-key",
            "k",
            "--allow-unregistered",
        ])
        .unwrap();
        let Command::Send(message) = args.command else { panic!("not send") };
        let call = send(&message, Some("me".to_owned())).unwrap();
        assert_eq!(call.path, "/api/v1/messages?allow_unregistered=true");
        assert_eq!(call.idempotency_key.as_deref(), Some("k"));
        assert_eq!(
            call.body.unwrap(),
            "{\"sender_service\":\"me\",\"target_service\":\"demo\",\"message_type\":\"a.b\",\
             \"content\":{\"z\":1.0,\"a\":[ ]},\"priority\":9,\"delay_seconds\":120}"
        );
    }

    #[test]
    fn wrong_use_is_found_before_anything_is_sent() {
        assert!(parse(&["send", "--target", "Demo", "--type", "t", "--content", "1"]).is_err());
        assert!(
            parse(&["send", "--target", "a", "--type", "t", "--content", "1", "--priority", "10"]).is_err()
        );
        assert!(parse(&["get", "no-id"]).is_err());
        let args = parse(&["send", "--target", "a", "--type", "t", "--content", "1"]).unwrap();
        let Command::Send(message) = args.command else { panic!("not send") };
        assert_eq!(send(&message, None).unwrap_err().exit(), super::super::Exit::Usage);
    }

    #[test]
    fn filters_become_a_query() {
        let args = parse(&["list", "--status", "dead_letter", "--target", "demo", "--limit", "7"]).unwrap();
        let Command::List(filter) = args.command else { panic!("not list") };
        assert_eq!(list(&filter), "/api/v1/messages?status=dead_letter&target_service=demo&limit=7");
    }
}
