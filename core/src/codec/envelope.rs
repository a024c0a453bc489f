//! One envelope: `magic u16 | envelope version u8 | kind u16 | kind version u16 | flags u8 | request id 16 B | length u32 |
//! CRC32C u32 | body`, big-endian. The checksum covers the header before it and the body.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::Kind;
use crate::id::RequestId;

const MAGIC: u16 = 0x4D48;
const VERSION: u8 = 1;
/// Bytes of an envelope before its body.
pub const ENVELOPE_HEADER: usize = 2 + 1 + 2 + 2 + 1 + 16 + 4 + 4;
/// A node that does not know the kind may skip the envelope.
pub const FLAG_IGNORABLE: u8 = 1;

/// Why bytes are not an envelope that this node can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end too early.
    #[error("truncated")]
    Truncated,
    /// They do not start as an envelope does.
    #[error("not an envelope")]
    Magic,
    /// The checksum does not fit.
    #[error("checksum mismatch")]
    Checksum,
    /// A newer envelope, kind or kind version that must not be skipped.
    #[error("kind {kind} version {version} is unknown to this version of message-hub; upgrade this node")]
    Unknown {
        /// The kind's number.
        kind: Kind,
        /// Its version.
        version: u16,
    },
    /// The body is not what its kind says.
    #[error("malformed body: {0}")]
    Body(String),
}

/// What decoding gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<T> {
    /// A value.
    Value(T),
    /// Unknown here, and marked as safe to skip.
    Ignorable,
}

/// A kind, its version and its encoded body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// What it is.
    pub kind: Kind,
    /// Which shape of it.
    pub version: u16,
    /// Bit 0: may be skipped by who does not know it.
    pub flags: u8,
    /// The encoded body.
    pub body: Bytes,
}

impl Envelope {
    /// An envelope that every reader must understand.
    pub fn required<T: Serialize>(kind: Kind, version: u16, body: &T) -> Self {
        Self { kind, version, flags: 0, body: encode_body(body) }
    }

    /// An error that names this kind, unless it may be skipped.
    pub fn unknown<T>(&self) -> Result<Decoded<T>, CodecError> {
        if self.flags & FLAG_IGNORABLE != 0 {
            Ok(Decoded::Ignorable)
        } else {
            Err(CodecError::Unknown { kind: self.kind, version: self.version })
        }
    }

    /// Appends this envelope to `out`.
    pub fn write(&self, request: RequestId, out: &mut BytesMut) {
        let start = out.len();
        out.reserve(ENVELOPE_HEADER + self.body.len());
        out.put_u16(MAGIC);
        out.put_u8(VERSION);
        out.put_u16(self.kind);
        out.put_u16(self.version);
        out.put_u8(self.flags);
        out.put_slice(request.0.as_bytes());
        out.put_u32(u32::try_from(self.body.len()).unwrap_or(u32::MAX));
        let header = crc32c::crc32c(out.get(start..).unwrap_or_default());
        out.put_u32(crc32c::crc32c_append(header, &self.body));
        out.put_slice(&self.body);
    }

    /// Takes one envelope from the front of `bytes`, without copying its body.
    pub fn read(bytes: &mut Bytes) -> Result<(RequestId, Self), CodecError> {
        if bytes.len() < ENVELOPE_HEADER {
            return Err(CodecError::Truncated);
        }
        let mut header = bytes.slice(..ENVELOPE_HEADER);
        let checked = header.slice(..ENVELOPE_HEADER - 4);
        if header.get_u16() != MAGIC {
            return Err(CodecError::Magic);
        }
        let envelope_version = header.get_u8();
        let kind = header.get_u16();
        let version = header.get_u16();
        if envelope_version != VERSION {
            return Err(CodecError::Unknown { kind, version });
        }
        let flags = header.get_u8();
        let request = RequestId(Uuid::from_u128(header.get_u128()));
        let length = usize::try_from(header.get_u32()).map_err(|_| CodecError::Truncated)?;
        let checksum = header.get_u32();
        let end = ENVELOPE_HEADER.checked_add(length).ok_or(CodecError::Truncated)?;
        if bytes.len() < end {
            return Err(CodecError::Truncated);
        }
        let body = bytes.slice(ENVELOPE_HEADER..end);
        if crc32c::crc32c_append(crc32c::crc32c(&checked), &body) != checksum {
            return Err(CodecError::Checksum);
        }
        bytes.advance(end);
        Ok((request, Self { kind, version, flags, body }))
    }
}

/// Encodes a frozen struct with `bincode` 2, variable-length integers.
pub fn encode_body<T: Serialize>(body: &T) -> Bytes {
    // Writing to memory fails only for types that bincode cannot write at all; the golden tests write every one of ours.
    bincode::serde::encode_to_vec(body, bincode::config::standard()).map(Bytes::from).unwrap_or_default()
}

/// Most bytes that one body may claim to hold: a lying length must not make us reserve the machine's memory.
const BODY_LIMIT: usize = 64 << 20;

/// Decodes a frozen struct; bytes left over are an error.
pub fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    let config = bincode::config::standard().with_limit::<BODY_LIMIT>();
    let (value, read) = bincode::serde::decode_from_slice(body, config)
        .map_err(|error| CodecError::Body(error.to_string()))?;
    if read == body.len() {
        Ok(value)
    } else {
        Err(CodecError::Body(format!("{} bytes left over", body.len() - read)))
    }
}
