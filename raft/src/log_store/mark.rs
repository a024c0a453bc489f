//! The synced mark: up to which offset the log was certainly on disk.
//!
//! It lies in a small file of its own (`synced`), not in the log: a record inside the log is lost together with the tail that
//! it should vouch for. Its order is safe by construction: a slot is written only after the sync that it speaks of has
//! returned, so the mark never runs ahead of the log, whatever of it reaches the disk and when. It is written after every
//! sync and made durable itself at most 100 ms later; until then a power cut can only make it older, that is more lenient.
//! Two slots are written in turn, each with a checksum, so a torn write leaves the previous one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// The file's name within the log folder.
pub(super) const FILE: &str = "synced";
const MAGIC: [u8; 8] = *b"MHSYNC\x00\x01";
const SLOT: usize = 32;
/// Slots lie in different sectors, so that one torn sector cannot take both.
const SLOT_STRIDE: u64 = 4096;

/// The open mark file.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    sequence: AtomicU64,
    offset: AtomicU64,
}

impl Mark {
    /// Opens or makes the file, and reads the newest whole slot.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let newest = [0, 1].into_iter().filter_map(|slot| read_slot(&file, slot)).max();
        let (sequence, offset) = newest.unwrap_or_default();
        if newest.is_none() {
            file.sync_all()?;
            File::open(dir)?.sync_all()?;
        }
        Ok(Self { file, sequence: AtomicU64::new(sequence), offset: AtomicU64::new(offset) })
    }

    /// The log was synced at least up to here, in bytes since its beginning.
    pub(super) fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Call only after the log was synced up to `offset`. Called by one thread at a time.
    pub(super) fn advance(&self, offset: u64) -> io::Result<()> {
        if offset <= self.offset() {
            return Ok(());
        }
        let sequence = self.sequence.load(Ordering::Acquire) + 1;
        self.file.write_all_at(&encode_slot(sequence, offset), (sequence % 2) * SLOT_STRIDE)?;
        self.sequence.store(sequence, Ordering::Release);
        self.offset.store(offset, Ordering::Release);
        Ok(())
    }

    /// Makes the mark itself durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn encode_slot(sequence: u64, offset: u64) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    let (body, checksum) = slot.split_at_mut(24);
    for (to, from) in
        body.iter_mut().zip(MAGIC.into_iter().chain(sequence.to_be_bytes()).chain(offset.to_be_bytes()))
    {
        *to = from;
    }
    for (to, from) in checksum.iter_mut().zip(crc32c::crc32c(body).to_be_bytes()) {
        *to = from;
    }
    slot
}

fn read_slot(file: &File, slot: u64) -> Option<(u64, u64)> {
    let mut bytes = [0; SLOT];
    file.read_exact_at(&mut bytes, slot * SLOT_STRIDE).ok()?;
    let word = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let checksum = u32::from_be_bytes(bytes.get(24..28)?.try_into().ok()?);
    let whole = bytes.get(..8)? == MAGIC && crc32c::crc32c(bytes.get(..24)?) == checksum;
    if whole { Some((word(8)?, word(16)?)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_torn_slot_and_never_steps_back() {
        let dir = tempfile::tempdir().unwrap();
        let mark = Mark::open(dir.path()).unwrap();
        assert_eq!(mark.offset(), 0);
        mark.advance(100).unwrap();
        mark.advance(50).unwrap();
        mark.advance(200).unwrap();
        mark.sync().unwrap();
        drop(mark);
        let mark = Mark::open(dir.path()).unwrap();
        assert_eq!(mark.offset(), 200);
        mark.file.write_all_at(&[9; 5], 20).unwrap();
        drop(mark);
        assert_eq!(Mark::open(dir.path()).unwrap().offset(), 100, "the older slot remains");
    }

    #[test]
    fn slot_is_frozen() {
        let slot = encode_slot(3, 0x0102);
        assert_eq!(
            &slot[..24],
            b"MHSYNC\x00\x01\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x01\x02"
        );
        assert_eq!(slot[24..28], crc32c::crc32c(&slot[..24]).to_be_bytes());
    }
}
