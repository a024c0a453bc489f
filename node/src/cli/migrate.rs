//! `migrate`: brings the database up to date, without a node.

use std::path::PathBuf;
use std::time::Duration;

use hub_storage::postgres::prepare;
use serde_json::json;

use super::args::OutputArgs;
use super::{Failure, Output, config};
use crate::client::source;
use crate::coded::CodedError;
use crate::config::ServeFlags;
use crate::database::{refused, url_of};
use hub_core::error::code;

/// Bring the database at DATABASE_URL up to date. A node does it at its start, too; this is for users that may not change the
/// tables, and for doing it beforehand. Doing it again changes nothing.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file [default: message-hub.toml, if it exists]
    #[arg(long, value_name = "FILE", env = "MESSAGE_HUB_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// How long it may take.
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    timeout: Duration,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let flags = ServeFlags { config: args.config, ..ServeFlags::default() };
    let loaded = config::load(&flags)?;
    let Some(url) = &loaded.config.postgres.url else {
        let detail = "there is no database to migrate: set DATABASE_URL";
        return Err(CodedError::new(code::CONFIG, detail).into());
    };
    let prepared = prepare(&url_of(url), source::instant() + args.timeout).await.map_err(refused)?;
    let rows = vec![vec![prepared.server.clone(), prepared.applied.to_string()]];
    let document = json!({"server": prepared.server, "applied": prepared.applied});
    Output::new(args.output.output).rows(&["POSTGRESQL", "MIGRATIONS APPLIED"], &rows, &document)
}
