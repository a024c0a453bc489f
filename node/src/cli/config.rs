//! `config`: the settings, their meaning, and what is in force.

use clap::Subcommand;

use super::{Failure, output};
use crate::coded::CodedError;
use crate::config::{self, ServeFlags};

/// Show and check settings.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a configuration file with every setting, its default and its meaning.
    Default,
    /// Check file, environment and flags, and list every mistake.
    Check(Box<ServeFlags>),
    /// Print the settings in force and where each came from; secrets are left out.
    Show(Box<ServeFlags>),
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Default => output::print(config::default_toml().as_bytes()),
        Command::Check(flags) => {
            load(&flags)?;
            output::note("the configuration is valid");
            Ok(())
        }
        Command::Show(flags) => output::print(config::show(&load(&flags)?).as_bytes()),
    }
}

/// Reads all layers; says every mistake.
pub(super) fn load(flags: &ServeFlags) -> Result<config::Loaded, Failure> {
    Ok(config::load(&flags.inputs()).map_err(CodedError::from)?)
}
