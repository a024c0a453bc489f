//! A test's own folder on a real file system, and the machine for itself while the test runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A folder below the build's target folder. It is kept when the test fails, so that its logs can be read.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Only one cluster under faults runs at a time, whichever runner starts the tests.
    _machine: File,
}

impl Folder {
    /// An empty folder of this name; waits until no other test of this kind runs.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let base = base()?;
        fs::create_dir_all(&base)?;
        let machine = File::create(base.join("lock"))?;
        machine.lock()?;
        let path = base.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir(&path)?;
        Ok(Self { path, _machine: machine })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder inside.
    pub fn subfolder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // A folder that stays costs space only; the next run of the test clears it.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Beside the test programs: the target folder, never a memory file system.
fn base() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let profile =
        program.parent().and_then(Path::parent).context("a test program lies in target/<profile>/deps")?;
    Ok(profile.join("chaos"))
}
