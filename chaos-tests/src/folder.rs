//! A test's own folder on a real file system, and the machine for itself while the test runs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// How many warnings and errors of each log are shown when a test fails.
const SHOWN_LINES: usize = 40;

/// A folder below the build's target folder. Unless the test [passes](Folder::pass) it stays, and its logs are shown.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    passed: bool,
    /// Only one test under faults runs at a time, whichever runner starts it.
    _machine: File,
}

impl Folder {
    /// An empty folder of this name; waits until no other test of this kind runs.
    ///
    /// # Errors
    /// The file system refuses.
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
        Ok(Self { path, passed: false, _machine: machine })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The test is over and well: the folder goes.
    pub fn pass(mut self) {
        self.passed = true;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The test's own words come after the logs, so that they are the last to be cut off. Nothing here may hide them;
        // a folder that stays is cleared by the next run.
        let _ = if self.passed { fs::remove_dir_all(&self.path) } else { show_logs(&self.path) };
    }
}

/// Beside the test programs: the target folder, never a memory file system.
fn base() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let profile =
        program.parent().and_then(Path::parent).context("a test program lies in target/<profile>/deps")?;
    Ok(profile.join("chaos"))
}

fn show_logs(folder: &Path) -> io::Result<()> {
    let mut err = io::stderr().lock();
    writeln!(err, "kept: {}", folder.display())?;
    let mut logs = Vec::new();
    for home in fs::read_dir(folder)?.flatten().filter(|entry| entry.path().is_dir()) {
        let files = fs::read_dir(home.path())?.flatten().map(|entry| entry.path());
        logs.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "log")));
    }
    logs.sort();
    for log in logs {
        let text = fs::read_to_string(&log)?;
        let lines: Vec<_> = text.lines().filter(|line| matters(line)).collect();
        writeln!(err, "--- the last warnings and errors of {}", log.display())?;
        for line in lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)) {
            writeln!(err, "{line}")?;
        }
    }
    Ok(())
}

/// A warning, an error, or something that is no log line, such as the reason for an exit.
fn matters(line: &str) -> bool {
    !["DEBUG", "INFO", "TRACE"].iter().any(|level| line.contains(&format!("\"level\":\"{level}\"")))
}
