//! The loss of power: a disk's files are put back to what was synced.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::shim::Disk;

/// Sectors are written whole or not at all.
const SECTOR: usize = 512;

/// What happens to bytes that were written and not synced.
#[derive(Clone, Copy, Debug)]
pub enum Unsynced {
    /// All of them are gone.
    Lost,
    /// Each changed sector, and each file's new length, is kept or lost by a coin: the disk wrote some of them, in its own order.
    Torn {
        /// The same seed throws the same coins.
        seed: u64,
    },
}

/// What a loss of power did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loss {
    /// Files of which something was lost, or all of it.
    pub files: usize,
    /// Sectors that were put back to their synced bytes, or cut off.
    pub sectors: usize,
}

/// Takes the power from a disk. All processes on it must be dead.
///
/// # Errors
/// No process ever ran on the disk, or its files cannot be copied.
pub fn cut(disk: &Disk, unsynced: Unsynced) -> anyhow::Result<Loss> {
    let shadow = Shadow::read(disk)?;
    let mut coins = match unsynced {
        Unsynced::Lost => None,
        Unsynced::Torn { seed } => Some(Coins(seed | 1)),
    };
    let rebuilt = disk.root().with_extension("rebuilt");
    let mut loss = Loss::default();
    let root = fs::read_link(disk.shadow().join("root"))?;
    shadow.rebuild(&disk.shadow().join(root), &rebuilt, &mut coins, &mut loss)?;
    fs::remove_dir_all(disk.root())?;
    fs::rename(rebuilt, disk.root())?;
    fs::remove_dir_all(disk.shadow())?;
    Ok(loss)
}

struct Shadow {
    folder: PathBuf,
    /// From the inode of a file in the shadow to the real file that it shadows, if that still has a name.
    real: HashMap<u64, PathBuf>,
}

impl Shadow {
    fn read(disk: &Disk) -> anyhow::Result<Self> {
        let folder = disk.shadow();
        let mut by_number = HashMap::new();
        list_files(&disk.root(), &mut by_number)?;
        let mut real = HashMap::new();
        for entry in fs::read_dir(folder.join("inodes")).context("no process ran on this disk")? {
            let entry = entry?;
            let number: u64 = entry.file_name().to_string_lossy().parse()?;
            if let Some(path) = by_number.get(&number) {
                real.insert(entry.metadata()?.ino(), path.clone());
            }
        }
        Ok(Self { folder, real })
    }

    fn rebuild(
        &self,
        names: &Path,
        to: &Path,
        coins: &mut Option<Coins>,
        loss: &mut Loss,
    ) -> anyhow::Result<()> {
        fs::create_dir(to)?;
        for entry in fs::read_dir(names)? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            if kind.is_symlink() {
                let inode = fs::read_link(entry.path())?;
                self.rebuild(&self.folder.join("dirs").join(inode), &to.join(name), coins, loss)?;
            } else if !name.to_string_lossy().ends_with("-shm") {
                self.rebuild_file(&entry.path(), &to.join(name), coins, loss)?;
            }
        }
        Ok(())
    }

    fn rebuild_file(
        &self,
        synced: &Path,
        to: &Path,
        coins: &mut Option<Coins>,
        loss: &mut Loss,
    ) -> anyhow::Result<()> {
        fs::copy(synced, to)?;
        let Some(real) = self.real.get(&fs::metadata(synced)?.ino()) else {
            return Ok(());
        };
        let (real, rebuilt) = (File::open(real)?, File::options().read(true).write(true).open(to)?);
        let lost_before = loss.sectors;
        let (written, durable) = (real.metadata()?.len(), rebuilt.metadata()?.len());
        let keep_length = written != durable && coins.as_mut().is_some_and(Coins::flip);
        if keep_length {
            rebuilt.set_len(written)?;
        }
        let length = if keep_length { written } else { durable };
        loss.sectors += (written.saturating_sub(length) as usize).div_ceil(SECTOR);
        for at in (0..length.min(written)).step_by(SECTOR) {
            let (new, old) = (sector(&real, at)?, sector(&rebuilt, at)?);
            if new == old {
                continue;
            }
            if coins.as_mut().is_some_and(Coins::flip) {
                let end = new.len().min((length - at) as usize);
                rebuilt.write_all_at(new.get(..end).unwrap_or(&new), at)?;
            } else {
                loss.sectors += 1;
            }
        }
        loss.files += usize::from(loss.sectors > lost_before);
        Ok(())
    }
}

/// The bytes of a sector, fewer at the end of the file.
fn sector(file: &File, at: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0; SECTOR];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let got = file.read_at(rest, at + filled as u64)?;
        if got == 0 {
            break;
        }
        filled += got;
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn list_files(folder: &Path, by_number: &mut HashMap<u64, PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list_files(&entry.path(), by_number)?;
        } else if kind.is_file() {
            by_number.insert(entry.metadata()?.ino(), entry.path());
        }
    }
    Ok(())
}

/// Repeatable coins: xorshift, never zero.
struct Coins(u64);

impl Coins {
    fn flip(&mut self) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 & 0x1_0000 != 0
    }
}
