//! `dead-letters`: what could not be delivered; replay or discard it.

use clap::Subcommand;
use hub_core::id::{MessageId, ServiceName};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::args::ClientArgs;
use super::messages::{self, Page};
use super::output::{self, Column};
use super::{Exit, Failure, Output};
use crate::client::{Call, Client, push_query};

/// Look at messages that could not be delivered; replay or discard them.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List dead letters, newest first.
    List {
        /// Only those for this service.
        #[arg(long, value_name = "SERVICE")]
        service: Option<ServiceName>,
        #[command(flatten)]
        page: Page,
    },
    /// Show a dead letter and its attempts.
    Show {
        /// The message.
        id: MessageId,
    },
    /// Send dead letters again, under the same id.
    Replay {
        /// The messages.
        #[arg(required = true)]
        ids: Vec<MessageId>,
    },
    /// Give dead letters up for good.
    Discard {
        /// The messages.
        #[arg(required = true)]
        ids: Vec<MessageId>,
    },
}

const LIST: &[Column] = &[
    ("ID", "/id"),
    ("FROM", "/sender_service"),
    ("TO", "/target_service"),
    ("TYPE", "/message_type"),
    ("REASON", "/reason"),
    ("DEAD SINCE", "/dead_at"),
    ("ERROR", "/error_message"),
];

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.client.client()?;
    let output = args.client.output();
    match args.command {
        Command::List { service, page } => {
            let mut path = "/api/v1/dead-letters".to_owned();
            if let Some(service) = service {
                push_query(&mut path, "service", service.as_str());
            }
            page.push(&mut path);
            output.page(&client.send(Call::get(path)).await?.body, LIST)
        }
        Command::Show { id } => {
            let answer = client.send(Call::get(format!("/api/v1/dead-letters/{id}"))).await?;
            messages::show(output, &answer.body)
        }
        Command::Replay { ids } => {
            each(&client, output, &ids, |id| Call::post(format!("/api/v1/dead-letters/{id}/replay"))).await
        }
        Command::Discard { ids } => {
            each(&client, output, &ids, |id| Call::delete(format!("/api/v1/dead-letters/{id}"))).await
        }
    }
}

/// Does the same to each; goes on after a refusal, and ends with the worst exit code.
async fn each(
    client: &Client,
    output: Output,
    ids: &[MessageId],
    call: impl Fn(MessageId) -> Call,
) -> Result<(), Failure> {
    let bar = if ids.len() > 1 && output::is_watched() {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}").map_err(Failure::failed)?;
        ProgressBar::new(u64::try_from(ids.len()).unwrap_or(u64::MAX)).with_style(style)
    } else {
        ProgressBar::hidden()
    };
    let mut rows = Vec::with_capacity(ids.len());
    let mut documents = Vec::with_capacity(ids.len());
    let mut worst: Option<Exit> = None;
    for id in ids {
        match client.send(call(*id)).await {
            Ok(answer) => {
                let document: Value = answer.json()?;
                let status = document.pointer("/status").and_then(Value::as_str).unwrap_or("done");
                rows.push(vec![id.to_string(), status.to_owned()]);
                documents.push(document);
            }
            Err(error) => {
                let failure = Failure::Client(error);
                bar.suspend(|| output::note(&format!("{id}: {failure}")));
                worst = Some(worst.map_or_else(|| failure.exit(), |worst| worse(worst, failure.exit())));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    output.rows(&["ID", "STATUS"], &rows, &Value::Array(documents))?;
    worst.map_or(Ok(()), |exit| Err(Failure::Told(exit)))
}

/// The exit code that a script needs to know of most: that something is unknown, then unreachable, then refused.
fn worse(one: Exit, other: Exit) -> Exit {
    let rank = |exit: Exit| match exit {
        Exit::Ok => 0,
        Exit::Refused => 1,
        Exit::Usage => 2,
        Exit::Failed => 3,
        Exit::Unreachable => 4,
        Exit::Unknown => 5,
    };
    if rank(other) > rank(one) { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_outcomes_weigh_most() {
        assert_eq!(worse(Exit::Refused, Exit::Unknown), Exit::Unknown);
        assert_eq!(worse(Exit::Unknown, Exit::Unreachable), Exit::Unknown);
        assert_eq!(worse(Exit::Failed, Exit::Refused), Exit::Failed);
    }
}
