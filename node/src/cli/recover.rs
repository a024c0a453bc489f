//! `cluster recover`: says what a damaged or lonely folder still holds, and makes its node a cluster of one.

use std::fmt::Write as _;
use std::path::PathBuf;

use hub_core::port::Group;

use super::{Exit, Failure, config, output};
use crate::clock::{Machine as _, SystemMachine};
use crate::config::ServeFlags;
use crate::recover::{Action, Found, Report, recover};

/// Make the survivor of a lost majority, or of damage, a cluster of one. The node must be stopped.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Do it, and accept that what the report says is lost.
    #[arg(long)]
    accept_loss: bool,
    /// Do it although other voters answer, or something else does at their addresses. If they are a majority, two clusters
    /// go on.
    #[arg(long, requires = "accept_loss")]
    others_answer: bool,
    /// The node's data folder [default: as `serve` has it]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Configuration file [default: message-hub.toml, if it exists]
    #[arg(long, value_name = "FILE", env = "MESSAGE_HUB_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let flags = ServeFlags { config: args.config, data: args.data, ..ServeFlags::default() };
    let data = config::load(&flags)?.config.node.data;
    let action = match (args.accept_loss, args.others_answer) {
        (false, _) => Action::Look,
        (true, false) => Action::Recover,
        (true, true) => Action::RecoverBesideOthers,
    };
    let report = recover(&data, SystemMachine.wall(), action).await?;
    output::print(describe(&report, args.accept_loss).as_bytes())?;
    if args.accept_loss {
        output::note("done: start the node, then start the others with `serve --rejoin`");
        return Ok(());
    }
    output::note("nothing was changed: repeat it with --accept-loss to do it");
    Err(Failure::Told(Exit::Refused))
}

fn describe(report: &Report, done: bool) -> String {
    let mut text = String::new();
    let becomes = if done { "is" } else { "would be" };
    let _ = writeln!(
        text,
        "node {} {becomes} the only one of its cluster, of generation {}; all others are kept out from then on",
        report.node, report.generation
    );
    for (group, found) in &report.groups {
        let _ = writeln!(text, "{}", line(*group, found));
    }
    text
}

fn line(group: Group, found: &Found) -> String {
    let (name, what) = match group {
        Group::Control => ("control", "services, settings and nodes"),
        Group::Messages => ("messages", "messages"),
    };
    match found {
        Found::Kept(remains) => {
            let voters: Vec<String> = remains.voters.keys().map(ToString::to_string).collect();
            let mut text = format!(
                "{name}: kept up to entry {}; voters were {}. What the others have acknowledged after it is lost.",
                remains.last_index,
                if voters.is_empty() { "none".to_owned() } else { voters.join(", ") },
            );
            if let Some(lost) = &remains.lost {
                let _ = write!(text, " The log is damaged: {lost}.");
            }
            text
        }
        Found::Gone { damage, aside } => {
            let mut text = format!("{name}: all {what} are lost: {damage}.");
            if let Some(aside) = aside {
                let _ = write!(text, " The damaged data is in {}.", aside.display());
            }
            text
        }
    }
}
