//! How a test of a cluster is run: its folder, its runtime, its limit.

use std::time::Duration;

use anyhow::Context;

use crate::folder::Folder;

/// No scenario needs this long; one that hangs ends with its logs.
const LIMIT: Duration = Duration::from_secs(540);

/// Runs a test in a folder of its own.
///
/// # Errors
/// What the test says, or that it took too long.
pub fn run<F>(name: &str, test: F) -> anyhow::Result<()>
where
    F: AsyncFnOnce(&Folder) -> anyhow::Result<()>,
{
    let folder = Folder::new(name)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let limited = async { tokio::time::timeout(LIMIT, test(&folder)).await };
    runtime.block_on(limited).with_context(|| format!("{name} took more than {LIMIT:?}"))??;
    folder.pass();
    Ok(())
}
