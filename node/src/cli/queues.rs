//! `queues`: the queues of the broker, asked and changed directly. The hub makes them by itself when it needs them.

use std::path::PathBuf;

use clap::Subcommand;
use hub_core::error::code;
use hub_core::id::ServiceName;
use hub_storage::rabbitmq::Kind;
use hub_storage::rabbitmq::admin::{Admin, Queues};
use serde_json::{Value, json};

use super::args::ClientArgs;
use super::{Exit, Failure, Output, config, output};
use crate::broker::{options, refused};
use crate::client::{Call, Client, push_query};
use crate::coded::CodedError;
use crate::config::ServeFlags;

/// See, make and empty the queues of the broker at RABBITMQ_URL.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Configuration file [default: message-hub.toml, if it exists]
    #[arg(long, value_name = "FILE", env = "MESSAGE_HUB_CONFIG", hide_env_values = true, global = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the queues of services, and what they hold.
    List {
        /// Whose [default: all that are registered; a node is asked for them].
        services: Vec<ServiceName>,
    },
    /// Make the queues of services beforehand. Doing it again changes nothing.
    Setup {
        /// Whose [default: all that are registered; a node is asked for them].
        services: Vec<ServiceName>,
    },
    /// Empty a service's queue. No message is lost by it: what is to be delivered is published again within half a minute.
    Purge {
        /// Whose.
        service: ServiceName,
        /// The dead-letter queue instead: the dead letters themselves stay.
        #[arg(long)]
        dead_letters: bool,
        /// Do it; without, it is only said what would be done.
        #[arg(long)]
        yes: bool,
    },
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let flags = ServeFlags { config: args.config, ..ServeFlags::default() };
    let loaded = config::load(&flags)?;
    let Some(options) = options(&loaded.config) else {
        return Err(CodedError::new(code::CONFIG, "there is no broker: set RABBITMQ_URL").into());
    };
    let (client, printer) = (args.client.client()?, args.client.output());
    match args.command {
        Command::List { services } => {
            let services = chosen(&client, services).await?;
            let mut admin = Admin::connect(options).await.map_err(refused)?;
            let mut found = Vec::new();
            for service in &services {
                found.push(admin.look(service).await.map_err(refused)?);
            }
            admin.close().await;
            show(printer, &found)
        }
        Command::Setup { services } => {
            let services = chosen(&client, services).await?;
            let mut admin = Admin::connect(options).await.map_err(refused)?;
            let mut made = Vec::new();
            for service in &services {
                made.push(admin.set_up(service).await.map_err(refused)?);
            }
            admin.close().await;
            show(printer, &made)
        }
        Command::Purge { service, dead_letters, yes } => {
            let mut admin = Admin::connect(options).await.map_err(refused)?;
            let kind = if dead_letters { Kind::Dead } else { Kind::Work };
            let result = purge(&mut admin, printer, kind, &service, yes).await;
            admin.close().await;
            result
        }
    }
}

/// Empties a queue, or says what would be taken out of it.
async fn purge(
    admin: &mut Admin,
    printer: Output,
    kind: Kind,
    service: &ServiceName,
    yes: bool,
) -> Result<(), Failure> {
    let found = admin.look(service).await.map_err(refused)?;
    let (queue, depth) = match kind {
        Kind::Work => (found.work_name, found.work),
        Kind::Dead => (found.dead_name, found.dead),
    };
    let messages = match depth {
        Some(_) if yes => admin.purge(kind, service).await.map_err(refused)?,
        other => other.map(|depth| depth.messages),
    };
    let Some(messages) = messages else {
        output::note(&format!("{queue}: there is no such queue"));
        return Err(Failure::Told(Exit::Refused));
    };
    let rows = [vec![queue.clone(), messages.to_string(), if yes { "yes" } else { "no" }.to_owned()]];
    let document = json!({ "queue": queue, "messages": messages, "purged": yes });
    printer.rows(&["QUEUE", "MESSAGES", "PURGED"], &rows, &document)?;
    if yes {
        return Ok(());
    }
    output::note("nothing was changed: repeat it with --yes to do it");
    Err(Failure::Told(Exit::Refused))
}

/// The services that were named, or all that are registered.
async fn chosen(client: &Client, named: Vec<ServiceName>) -> Result<Vec<ServiceName>, Failure> {
    if !named.is_empty() {
        return Ok(named);
    }
    let (mut names, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let mut path = "/api/v1/services?limit=500".to_owned();
        if let Some(cursor) = &cursor {
            push_query(&mut path, "cursor", cursor);
        }
        let page: Value = client.send(Call::get(path)).await?.json()?;
        let items = page["items"].as_array().into_iter().flatten();
        names.extend(items.filter_map(|item| item["name"].as_str()?.parse().ok()));
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return Ok(names);
        }
    }
}

fn show(printer: Output, queues: &[Queues]) -> Result<(), Failure> {
    let titles = ["SERVICE", "QUEUE", "MESSAGES", "CONSUMERS", "DEAD-LETTER QUEUE", "MESSAGES"];
    let count = |count: Option<u32>| count.map_or_else(|| "no queue".to_owned(), |count| count.to_string());
    let row = |one: &Queues| {
        vec![
            one.service.to_string(),
            one.work_name.clone(),
            count(one.work.as_ref().map(|depth| depth.messages)),
            count(one.work.as_ref().map(|depth| depth.consumers)),
            one.dead_name.clone(),
            count(one.dead.as_ref().map(|depth| depth.messages)),
        ]
    };
    let document = |one: &Queues| {
        json!({
            "service": one.service.as_str(),
            "queue": one.work_name,
            "messages": one.work.as_ref().map(|depth| depth.messages),
            "consumers": one.work.as_ref().map(|depth| depth.consumers),
            "dead_letter_queue": one.dead_name,
            "dead_letters": one.dead.as_ref().map(|depth| depth.messages),
        })
    };
    let rows: Vec<Vec<String>> = queues.iter().map(row).collect();
    printer.rows(&titles, &rows, &Value::Array(queues.iter().map(document).collect()))
}
