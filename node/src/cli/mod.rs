//! The command line: a file a command, one place that prints, one that turns failures into exit codes.

mod args;
mod bench;
mod bench_job;
mod cluster;
pub(crate) mod cluster_status;
mod completions;
mod config;
mod dead_letters;
mod dev;
mod dev_screen;
mod doctor;
mod exit;
mod explain;
mod messages;
mod migrate;
mod output;
mod queues;
mod recover;
mod schedule;
mod serve;
mod services;
mod store;
mod store_progress;
pub(crate) mod token;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use exit::{Exit, Failure};
pub(crate) use output::Output;

/// Carries messages between services, from any node, and loses none.
#[derive(Debug, Parser)]
#[command(name = "message-hub", version, max_term_width = 110, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong use, 3 refused by the hub, 4 outcome unknown (ask \
again with the same key), 5 no node reachable.\nData goes to standard output, everything else to standard error.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node.
    Serve(Box<serve::Args>),
    /// Run a whole cluster on this machine, with a demo service and live traffic.
    Dev(dev::Args),
    /// Send, look up, list and cancel messages.
    Messages(messages::Args),
    /// Look at messages that could not be delivered; replay or discard them.
    DeadLetters(dead_letters::Args),
    /// Register services and see how they fare.
    Services(services::Args),
    /// See and operate the cluster.
    Cluster(cluster::Args),
    /// Show and check settings.
    Config(config::Args),
    /// Look at everything a node needs, and say what is wrong and how to mend it.
    Doctor(doctor::Args),
    /// Bring the database of the messages up to date.
    Migrate(migrate::Args),
    /// Move messages from one store to another.
    Store(store::Args),
    /// See, make and empty the queues of the broker.
    Queues(queues::Args),
    /// Make an access token.
    Token(token::Args),
    /// Explain an error code: cause and cure.
    Explain(explain::Args),
    /// Print completions for a shell.
    Completions(completions::Args),
    /// Measure speed and safety with real processes.
    Bench(bench::Args),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let wrong = error.use_stderr();
            output::clap(&error);
            return if wrong { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    match run(cli.command) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            output::failure(&failure);
            failure.exit().into()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::run(*args),
        Command::Dev(args) => here(dev::run(args)),
        Command::Messages(args) => here(messages::run(args)),
        Command::DeadLetters(args) => here(dead_letters::run(args)),
        Command::Services(args) => here(services::run(args)),
        Command::Cluster(args) => here(cluster::run(args)),
        Command::Config(args) => config::run(args),
        Command::Doctor(args) => here(doctor::run(args)),
        Command::Migrate(args) => here(migrate::run(args)),
        Command::Store(args) => here(store::run(args)),
        Command::Queues(args) => here(queues::run(args)),
        Command::Token(args) => token::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Bench(args) => here(bench::run(args)),
    }
}

/// Runs on this thread alone: children that shall die with their parent die with the *thread* that started them, and
/// the load generator leaves the other cores to the nodes.
fn here<F: Future<Output = Result<(), Failure>>>(work: F) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    runtime.block_on(work)
}
