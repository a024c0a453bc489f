//! `store`: moves messages from one store to another.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use hub_core::error::code;
use hub_storage::copy::{Done, Origin, Totals};
use hub_storage::postgres::Standing;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::args::OutputArgs;
use super::store_progress::Progress;
use super::{Failure, Output, config, output};
use crate::client::source;
use crate::clock::{HubClock, Machine as _, SystemMachine};
use crate::coded::CodedError;
use crate::config::ServeFlags;
use crate::database::url_of;
use crate::store_copy::{Options, Plan, look, run as copy};

/// Move messages from one store to another.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Move the messages of a stopped node's data folder into the database at DATABASE_URL; the node then goes on there.
    ///
    /// All messages go, in whatever state, with their attempts and idempotency keys. Interrupted at any moment, the same
    /// command goes on where it stopped, and at no moment can both the folder and the database be started on. The old data
    /// is set aside in the folder. Of a cluster, the one node that is left after the others were removed is copied; they
    /// come back with `serve --rejoin`.
    Copy(Copy),
}

#[derive(Debug, clap::Args)]
struct Copy {
    /// Where the messages are.
    #[arg(long, value_enum)]
    from: From,
    /// Where they go.
    #[arg(long, value_enum)]
    to: To,
    /// The node's data folder [default: as `serve` has it]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The database [default: DATABASE_URL]
    #[arg(long, value_name = "URL")]
    database_url: Option<SecretString>,
    /// Only say what would be copied, and whether it can be.
    #[arg(long)]
    dry_run: bool,
    /// Throw away what an unfinished copy has put into the database, and begin again.
    #[arg(long)]
    start_over: bool,
    /// Configuration file [default: message-hub.toml, if it exists]
    #[arg(long, value_name = "FILE", env = "MESSAGE_HUB_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum From {
    /// The data folder of a node.
    Embedded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum To {
    /// A PostgreSQL database.
    Postgres,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let Command::Copy(args) = args.command;
    let (From::Embedded, To::Postgres) = (args.from, args.to);
    let options = options(&args)?;
    let clock = Arc::new(HubClock::default());
    let printer = Output::new(args.output.output);
    if args.dry_run {
        return show_plan(printer, &look(&options, &*clock).await?);
    }
    let begun = source::instant();
    let mut progress = Progress::new(printer.is_table())?;
    let copied = copy(&options, clock, SystemMachine.wall(), |done, all| progress.show(done, all)).await;
    progress.end();
    let report = copied?;
    show_done(printer, report.origin, report.done, report.before, begun.elapsed())?;
    if report.before {
        output::note("this was copied before");
    }
    if let Some(aside) = &report.aside {
        output::note(&format!("the old data is in {}", aside.display()));
    }
    output::note("start the node with the same DATABASE_URL: it goes on with these messages");
    Ok(())
}

fn options(args: &Copy) -> Result<Options, Failure> {
    let set = args.database_url.iter().map(|url| format!("postgres.url={}", url.expose_secret())).collect();
    let flags =
        ServeFlags { config: args.config.clone(), data: args.data.clone(), set, ..ServeFlags::default() };
    let loaded = config::load(&flags)?.config;
    let Some(url) = &loaded.postgres.url else {
        let detail = "there is no database to copy into: set DATABASE_URL, or give --database-url";
        return Err(CodedError::new(code::CONFIG, detail).into());
    };
    Ok(Options { data: loaded.node.data.clone(), url: url_of(url), start_over: args.start_over })
}

fn origin_document(origin: Origin) -> Value {
    json!({ "cluster": format!("{:032x}", origin.cluster), "node": origin.node, "entry": origin.entry })
}

fn show_plan(printer: Output, plan: &Plan) -> Result<(), Failure> {
    let Totals { messages, open, dead_letters, keys } = plan.totals.unwrap_or_default();
    let counts = [messages, open, dead_letters, keys].map(|count| count.to_string());
    let begun = match plan.standing {
        Standing::Part(done) => Some(done.messages),
        _ => None,
    };
    let document = json!({
        "dry_run": true,
        "from": origin_document(plan.origin),
        "finished": matches!(plan.standing, Standing::Finished(_)),
        "messages": messages,
        "open": open,
        "dead_letters": dead_letters,
        "idempotency_keys": keys,
        "messages_there": begun,
    });
    let row =
        [plan.origin.node.to_string(), plan.origin.entry.to_string()].into_iter().chain(counts).collect();
    let titles = ["NODE", "UP TO ENTRY", "MESSAGES", "OPEN", "DEAD LETTERS", "KEYS"];
    printer.rows(&titles, &[row], &document)?;
    output::note(&match (plan.standing, begun) {
        (Standing::Finished(_), _) => "this was copied before".to_owned(),
        (_, Some(messages)) => format!("{messages} messages are there already; the copy would go on"),
        (standing, None) => format!("{standing}; the copy can begin"),
    });
    Ok(())
}

fn show_done(
    printer: Output,
    origin: Origin,
    done: Done,
    before: bool,
    took: Duration,
) -> Result<(), Failure> {
    let document = json!({
        "from": origin_document(origin),
        "copied_before": before,
        "messages": done.messages,
        "open": done.open,
        "dead_letters": done.dead_letters,
        "attempts": done.attempts,
        "idempotency_keys": done.keys,
        "seconds": took.as_secs_f64(),
    });
    let counts = [done.messages, done.open, done.dead_letters, done.attempts, done.keys];
    let row = counts.iter().map(ToString::to_string).chain([format!("{:.1}", took.as_secs_f64())]).collect();
    let titles = ["MESSAGES", "OPEN", "DEAD LETTERS", "ATTEMPTS", "KEYS", "SECONDS"];
    printer.rows(&titles, &[row], &document)
}
