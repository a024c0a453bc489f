//! `serve`: runs one node.

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::{Failure, config};
use crate::config::ServeFlags;
use crate::dev_cluster::PARENT_PID;

/// Run one node.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    flags: ServeFlags,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    follow_parent()?;
    let loaded = config::load(&args.flags)?;
    Ok(crate::serve::run(loaded, args.flags.rejoin)?)
}

/// A node that `dev` or `bench` started ends with them, however they end.
fn follow_parent() -> Result<(), Failure> {
    let Ok(parent) = std::env::var(PARENT_PID) else { return Ok(()) };
    let parent = parent.parse().ok().and_then(Pid::from_raw);
    let parent = parent.ok_or_else(|| Failure::Usage(format!("{PARENT_PID} is no process id")))?;
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Failure::failed(std::io::Error::from(error)))?;
    // It may have ended before the kernel knew.
    if getppid() == Some(parent) {
        Ok(())
    } else {
        Err(Failure::failed(anyhow::anyhow!("the process that started this node has ended")))
    }
}
