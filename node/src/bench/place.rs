//! Where the measured data lies: the file system, and that it is one on a disk.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::TempDir;

use super::Error;

const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

/// The file system that holds a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileSystem {
    /// `ext4`, `xfs`, …
    pub kind: String,
    /// Where it is mounted.
    pub mounted_at: String,
    /// What is mounted.
    pub device: String,
}

impl FileSystem {
    /// The file system of `folder`.
    ///
    /// # Errors
    /// When it cannot be found out, or lies in memory.
    pub fn of(folder: &Path) -> Result<Self, Error> {
        let fail = |source| Error::Folder { path: folder.to_owned(), source };
        let path = folder.canonicalize().map_err(fail)?;
        let stat = rustix::fs::statfs(&path).map_err(|error| fail(error.into()))?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(fail)?;
        let found = mounted(&mounts, &path).unwrap_or_else(|| Self {
            kind: format!("type {:#x}", stat.f_type),
            mounted_at: "?".to_owned(),
            device: "?".to_owned(),
        });
        #[expect(
            clippy::cast_sign_loss,
            reason = "magic numbers are bit patterns; their width differs by platform"
        )]
        let magic = (stat.f_type as u64) & 0xffff_ffff;
        if magic == TMPFS || magic == RAMFS {
            return Err(Error::InMemory { path, kind: found.kind });
        }
        Ok(found)
    }
}

/// The mount with the longest path that leads to `path`; of several at one place the last one hides the others.
fn mounted(mounts: &str, path: &Path) -> Option<FileSystem> {
    let mut best: Option<(usize, FileSystem)> = None;
    for line in mounts.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(place) = before.split(' ').nth(4) else { continue };
        let mut rest = after.split(' ');
        let (Some(kind), Some(device)) = (rest.next(), rest.next()) else { continue };
        let longer = best.as_ref().is_none_or(|(length, _)| place.len() >= *length);
        if longer && path.starts_with(place) {
            let found =
                FileSystem { kind: kind.to_owned(), mounted_at: place.to_owned(), device: device.to_owned() };
            best = Some((place.len(), found));
        }
    }
    best.map(|(_, found)| found)
}

/// A folder for one measurement, on a disk, removed afterwards.
#[derive(Debug)]
pub struct TempPlace {
    folder: TempDir,
    /// What it lies on.
    pub file_system: FileSystem,
}

impl TempPlace {
    /// A new folder in `parent`; in the system's folder for temporary files if `None`.
    ///
    /// # Errors
    /// When it cannot be made, or would lie in memory.
    pub fn new(parent: Option<&Path>) -> Result<Self, Error> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let fail = |path: &PathBuf| {
            let path = path.clone();
            move |source| Error::Folder { path, source }
        };
        std::fs::create_dir_all(&parent).map_err(fail(&parent))?;
        let file_system = FileSystem::of(&parent)?;
        let folder = tempfile::Builder::new()
            .prefix("message-hub-bench-")
            .tempdir_in(&parent)
            .map_err(fail(&parent))?;
        Ok(Self { folder, file_system })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:25 / /tmp rw - tmpfs tmpfs rw
31 22 8:2 / /data rw shared:7 - xfs /dev/sdb rw
";

    #[test]
    fn the_longest_mount_counts() {
        let at = |path: &str| mounted(MOUNTS, Path::new(path)).unwrap().kind;
        assert_eq!(at("/tmp/x"), "tmpfs");
        assert_eq!(at("/data/x/y"), "xfs");
        assert_eq!(at("/database"), "ext4");
    }

    #[test]
    fn memory_is_refused() {
        if Path::new("/dev/shm").is_dir()
            && std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" /dev/shm ")
        {
            assert!(matches!(TempPlace::new(Some(Path::new("/dev/shm"))), Err(Error::InMemory { .. })));
        }
    }
}
