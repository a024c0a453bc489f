//! Which process a container belongs to, and what removes the container once that process is gone.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use tokio::process::Command;
use tokio::sync::OnceCell;

/// The label of every container that names its owner.
pub(crate) const LABEL: &str = "message-hub.owner";

/// A process, told from a later one with the same id by when it started.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pid: u32,
    label: String,
}

impl Owner {
    /// This process.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub(crate) fn this() -> anyhow::Result<Self> {
        Self::of(std::process::id())
    }

    /// What started this test program: the runner, which outlives it and starts the others of the run too.
    ///
    /// # Errors
    /// As [`Owner::this`].
    pub(crate) fn runner() -> anyhow::Result<Self> {
        Self::of(std::os::unix::process::parent_id())
    }

    /// A living process.
    ///
    /// # Errors
    /// It is gone, or `/proc` cannot be read.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        // The fields after the name in brackets, which may hold anything.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields).with_context(|| path.clone())?;
        let started = fields.split_whitespace().nth(19).with_context(|| path.clone())?;
        Ok(Self { pid, label: format!("{pid}:{started}") })
    }

    /// `id:start time`.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Has its containers removed once it is gone, by a process that outlives it and this one.
    ///
    /// # Errors
    /// The script cannot be run.
    pub(crate) fn remove_after(&self) -> anyhow::Result<()> {
        // In a group of its own, so that what ends a test does not end this too.
        script(&["sweep", &self.pid.to_string()]).process_group(0).spawn().context("deploy/servers sweep")?;
        Ok(())
    }
}

/// Removes what earlier runs left, and has the containers of this process removed after it. Once for each process.
///
/// # Errors
/// The script cannot be run.
pub(crate) async fn prepare() -> anyhow::Result<()> {
    static DONE: OnceCell<()> = OnceCell::const_new();
    let prepare = async || {
        let swept = script(&["sweep"]).status().await.context("deploy/servers sweep")?;
        anyhow::ensure!(swept.success(), "deploy/servers sweep: {swept}");
        Owner::this()?.remove_after()
    };
    DONE.get_or_try_init(prepare).await.copied()
}

/// `deploy/servers`.
pub(crate) fn path() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/servers"))
}

fn script(arguments: &[&str]) -> Command {
    let mut command = Command::new(path());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use crate::engine::Engine;
    use crate::launch::Launch;

    #[tokio::test]
    async fn a_container_goes_when_its_owner_is_killed() -> anyhow::Result<()> {
        let mut process = Command::new("sleep").arg("600").spawn()?;
        let owner = Owner::of(process.id().context("it runs")?)?;
        let started = Launch::new(Kind::Redis, &owner).start().await?;
        // As after a kill of the process that holds the handle.
        let id = started.container.id().to_owned();
        std::mem::forget(started);

        owner.remove_after()?;
        let engine = Engine::connect().await?;
        assert!(engine.exists(&id).await?, "while its owner lives it stays");
        process.kill().await?;
        tokio::time::timeout(std::time::Duration::from_secs(60), async {
            while engine.exists(&id).await? {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            anyhow::Ok(())
        })
        .await??;
        Ok(())
    }
}
