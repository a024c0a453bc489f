//! `doctor`: one line for each thing a node needs, with its cure.

use serde_json::json;

use super::args::OutputArgs;
use super::{Exit, Failure, Output};
use crate::config::{self, ServeFlags};
use crate::doctor::{Finding, examine};

/// Look at everything a node with these settings needs: its folder, its peers, the servers it uses. Nothing is changed. Exit
/// code 1 if a node could not work so.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Box<ServeFlags>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let findings = match config::load(&args.flags.inputs()) {
        Ok(loaded) => examine(&loaded.config).await,
        Err(errors) => {
            errors.0.iter().map(|problem| Finding::failing("configuration", problem.code, problem)).collect()
        }
    };
    let row = |one: &Finding| {
        let cure = one.cure.clone().unwrap_or_default();
        vec![one.part.to_owned(), one.status.to_owned(), one.found.clone(), cure]
    };
    let rows: Vec<Vec<String>> = findings.iter().map(row).collect();
    let document = serde_json::to_value(&findings).unwrap_or_else(|_| json!([]));
    Output::new(args.output.output).rows(&["PART", "STATUS", "FOUND", "CURE"], &rows, &document)?;
    if findings.iter().any(Finding::is_failing) { Err(Failure::Told(Exit::Failed)) } else { Ok(()) }
}
