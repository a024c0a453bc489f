//! Snapshot files of machines in memory: `magic 8 | index u64 | opaque length u32 | body length u64 | CRC32C u32 | opaque |
//! body`, big-endian; the checksum covers everything else.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hub_core::port::AppliedMark;

const MAGIC: &[u8; 8] = b"MHSNAP\x00\x01";
const HEADER: usize = 8 + 8 + 4 + 8 + 4;

/// What is wrong with a snapshot file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Damaged(&'static str);

/// The bytes of a snapshot file.
pub(super) fn encode(mark: &AppliedMark, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER + mark.opaque.len() + body.len());
    out.put_slice(MAGIC);
    out.put_u64(mark.index);
    out.put_u32(u32::try_from(mark.opaque.len()).unwrap_or(u32::MAX));
    out.put_u64(body.len() as u64);
    let checksum = crc32c::crc32c(&out);
    let checksum = crc32c::crc32c_append(checksum, &mark.opaque);
    out.put_u32(crc32c::crc32c_append(checksum, body));
    out.put_slice(&mark.opaque);
    out.put_slice(body);
    out.freeze()
}

/// Back from [`encode`].
pub(super) fn decode(mut bytes: Bytes) -> Result<(AppliedMark, Bytes), Damaged> {
    if bytes.len() < HEADER {
        return Err(Damaged("file is too short"));
    }
    let mut header = bytes.split_to(HEADER);
    let checksum = crc32c::crc32c(&header.slice(..HEADER - 4));
    if header.split_to(8) != MAGIC.as_slice() {
        return Err(Damaged("file is not a snapshot"));
    }
    let index = header.get_u64();
    let opaque_length = header.get_u32() as usize;
    let body_length = usize::try_from(header.get_u64()).unwrap_or(usize::MAX);
    let expected = header.get_u32();
    if opaque_length.checked_add(body_length) != Some(bytes.len()) {
        return Err(Damaged("file has another length than it says"));
    }
    if crc32c::crc32c_append(checksum, &bytes) != expected {
        return Err(Damaged("checksum does not fit"));
    }
    let opaque = bytes.split_to(opaque_length);
    Ok((AppliedMark { index, opaque }, bytes))
}

/// Writes a file so that it is whole, or not there, whatever happens: temp, sync, rename, sync of the folder.
pub(super) fn write_durably(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temp = dir.join(format!("{name}.tmp"));
    let mut file = File::create(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&temp, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// A file's whole content; `None` if there is no file.
pub(super) fn read(path: &Path) -> io::Result<Option<Bytes>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_frozen_and_every_flipped_byte_is_found() {
        let mark = AppliedMark { index: 258, opaque: Bytes::from_static(b"op") };
        let bytes = encode(&mark, b"body");
        assert_eq!(
            &bytes[..28],
            b"MHSNAP\x00\x01\x00\x00\x00\x00\x00\x00\x01\x02\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x04"
        );
        assert_eq!(&bytes[32..], b"opbody");
        let (read, body) = decode(bytes.clone()).unwrap();
        assert_eq!((read, &body[..]), (mark, b"body".as_slice()));
        for at in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 0x10;
            assert!(decode(flipped.into()).is_err(), "byte {at}");
        }
        assert!(decode(bytes.slice(..bytes.len() - 1)).is_err());
    }
}
