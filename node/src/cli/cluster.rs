//! `cluster`: how the cluster stands, and what an operator does to it.

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::args::ClientArgs;
use super::output::{self, Column};
use super::{Exit, Failure, cluster_status, recover};
use crate::client::{Call, push_query};

/// See and operate the cluster.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the groups' leaders, and how far each node is behind.
    Status,
    /// List the nodes.
    Members,
    /// Take a node out of traffic: it hands its leaderships over and takes no new work.
    Drain {
        /// The node [default: the one that is asked].
        #[arg(long, value_name = "ID")]
        node: Option<u64>,
    },
    /// Hand the leadership of a group to another node.
    TransferLeader {
        /// The group.
        #[arg(long, value_enum)]
        group: Group,
        /// The node that shall lead [default: the one that is furthest].
        #[arg(long, value_name = "ID")]
        to: Option<u64>,
    },
    /// Remove a node for good: it leaves the cluster and is let in no more. A live one hands its leaderships over first.
    Remove {
        /// The node.
        #[arg(value_name = "ID")]
        node: u64,
    },
    /// Make the survivor of a lost majority, or of damage, a cluster of one. The node must be stopped.
    Recover(recover::Args),
    /// Say whether a node can be stopped without losing the majority; exit code 3 if not.
    Quorum {
        /// The node.
        #[arg(long, value_name = "ID")]
        without: u64,
    },
}

/// A replicated group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Group {
    /// Services and settings.
    Control,
    /// Messages.
    Messages,
}

impl Group {
    /// Its name on the wire.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Messages => "messages",
        }
    }
}

const MEMBERS: &[Column] = &[
    ("NODE", "/id"),
    ("ROLE", "/role"),
    ("LIVE", "/live"),
    ("DRAINING", "/draining"),
    ("VERSION", "/version"),
    ("REST", "/rest_url"),
    ("RAFT", "/raft_addr"),
];

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.client.client()?;
    let output = args.client.output();
    match args.command {
        Command::Status => cluster_status::run(&client, output).await,
        Command::Members => {
            let answer: Value = client.send(Call::get("/api/v1/cluster")).await?.json()?;
            let nodes = answer.get("nodes").cloned().unwrap_or_else(|| json!([]));
            let page = json!({ "items": nodes }).to_string();
            output.page(&page.into(), MEMBERS)
        }
        Command::Drain { node } => {
            let body = node.map_or_else(|| json!({}), |id| json!({ "node_id": id }));
            client.send(Call::post("/api/v1/cluster/drain").json(body.to_string())).await?;
            output::note("draining");
            Ok(())
        }
        Command::Recover(args) => recover::run(args).await,
        Command::Remove { node } => {
            client.send(Call::delete(format!("/api/v1/cluster/members/{node}"))).await?;
            output::note("removed");
            Ok(())
        }
        Command::TransferLeader { group, to } => {
            let mut body = json!({ "group": group.as_str() });
            if let (Some(to), Some(fields)) = (to, body.as_object_mut()) {
                fields.insert("to".to_owned(), json!(to));
            }
            let answer =
                client.send(Call::post("/api/v1/cluster/transfer-leader").json(body.to_string())).await?;
            if answer.body.is_empty() {
                output::note("handed over");
                return Ok(());
            }
            output.item(&answer.body, &[("group", "/group"), ("leader", "/leader"), ("term", "/term")])
        }
        Command::Quorum { without } => {
            let mut path = "/api/v1/cluster/quorum".to_owned();
            push_query(&mut path, "without", &without.to_string());
            let answer = client.send(Call::get(path)).await?;
            output.item(&answer.body, &[("safe", "/safe"), ("reason", "/reason")])?;
            let safe = answer.json::<Value>()?.get("safe").and_then(Value::as_bool) == Some(true);
            if safe { Ok(()) } else { Err(Failure::Told(Exit::Refused)) }
        }
    }
}
