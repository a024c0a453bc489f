//! How a test of a cluster is run: its folder, its runtime, its limit.

use anyhow::Context;

use crate::folder::Folder;
use crate::sizes;

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
    let limit = sizes::of_this_run().limit;
    let limited = async { tokio::time::timeout(limit, test(&folder)).await };
    runtime.block_on(limited).with_context(|| format!("{name} took more than {limit:?}"))??;
    folder.pass();
    Ok(())
}
