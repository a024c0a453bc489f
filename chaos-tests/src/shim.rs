//! The preloaded library under a process: its disk (`shim/powercut.c`) with the switches for its faults, and its wall clock
//! (`shim/clock.c`).

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

/// What can go wrong with a disk while a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Syncs answer success and make nothing durable.
    IgnoreSync,
    /// Syncs fail with EIO.
    EioOnSync,
    /// Writes to a database file fail with EIO, those to its write-ahead log do not.
    EioOnDatabase,
    /// Writes fail with ENOSPC.
    NoSpace,
    /// The file system reports next to no free space; writes still succeed.
    LowDisk,
}

impl Fault {
    fn file(self) -> &'static str {
        match self {
            Self::IgnoreSync => "ignore-sync",
            Self::EioOnSync => "eio-sync",
            Self::EioOnDatabase => "eio-database",
            Self::NoSpace => "enospc",
            Self::LowDisk => "low-disk",
        }
    }
}

/// By how many milliseconds the wall clock of a process is ahead, in its environment.
pub const CLOCK_AHEAD: &str = "WALL_CLOCK_AHEAD_MS";

/// Compiles the shim into `folder`.
///
/// # Errors
/// No C compiler, or it refuses the source.
pub fn compile(folder: &Path) -> anyhow::Result<PathBuf> {
    let disk = concat!(env!("CARGO_MANIFEST_DIR"), "/shim/powercut.c");
    let clock = concat!(env!("CARGO_MANIFEST_DIR"), "/shim/clock.c");
    let library = folder.join("powercut.so");
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&library)
        .args([disk, clock, "-ldl"])
        .output()
        .context("the fault tests need a C compiler named cc")?;
    anyhow::ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
    Ok(library)
}

/// A folder whose loss of power can be simulated.
#[derive(Clone, Debug)]
pub struct Disk {
    library: PathBuf,
    home: PathBuf,
}

impl Disk {
    /// A disk in `home`, with its files under [`Disk::root`].
    ///
    /// # Errors
    /// The folders cannot be made.
    pub fn new(library: &Path, home: &Path) -> anyhow::Result<Self> {
        let disk = Self { library: library.to_owned(), home: home.to_owned() };
        fs::create_dir_all(disk.root())?;
        fs::create_dir_all(disk.faults())?;
        Ok(disk)
    }

    /// The folder that processes write to.
    pub fn root(&self) -> PathBuf {
        self.home.join("disk")
    }

    /// What would be left of it without power, as the shim keeps it.
    pub fn shadow(&self) -> PathBuf {
        self.home.join("shadow")
    }

    fn faults(&self) -> PathBuf {
        self.home.join("faults")
    }

    /// The environment that puts a process on this disk.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", self.library.clone().into()),
            ("POWERCUT_ROOT", self.root().into()),
            ("POWERCUT_SHADOW", self.shadow().into()),
            ("POWERCUT_FAULTS", self.faults().into()),
        ]
    }

    /// Starts a fault, for all processes on this disk, at once.
    ///
    /// # Errors
    /// The switch cannot be written.
    pub fn start(&self, fault: Fault) -> anyhow::Result<()> {
        fs::write(self.faults().join(fault.file()), "")?;
        Ok(())
    }

    /// Ends a fault.
    ///
    /// # Errors
    /// It was not started.
    pub fn end(&self, fault: Fault) -> anyhow::Result<()> {
        fs::remove_file(self.faults().join(fault.file()))?;
        Ok(())
    }
}
