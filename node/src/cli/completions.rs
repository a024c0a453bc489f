//! `completions`: what a shell needs to complete this command line.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Failure, output};

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: message-hub completions bash > ~/.local/share/bash-completion/completions/message-hub"
)]
pub(super) struct Args {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "message-hub", &mut script);
    output::print(&script)
}
