//! The hub's own 64-bit hash: the same on every node, platform and version, because its results decide things.
//!
//! FNV-1a over the bytes, then one avalanche round (the 64-bit finalizer of MurmurHash3), since FNV alone mixes its
//! high bits badly. Not for secrets, and not against an opponent.

const OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01B3;

/// A running hash. Strings are written with their length, so that parts cannot run into each other.
#[derive(Clone, Copy, Debug)]
pub struct StableHash(u64);

impl Default for StableHash {
    fn default() -> Self {
        Self(OFFSET)
    }
}

impl StableHash {
    /// Takes raw bytes.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |state, byte| (state ^ u64::from(*byte)).wrapping_mul(PRIME)))
    }

    /// Takes a number as eight bytes, little-endian.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    /// Takes a string: its length, then its bytes.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.number(text.len() as u64).bytes(text.as_bytes())
    }

    /// The hash of all that was taken.
    #[must_use]
    pub const fn finish(self) -> u64 {
        let mut hash = self.0;
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xC4CE_B9FE_1A85_EC53);
        hash ^ (hash >> 33)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_what_it_was() {
        // Computed apart, from the published FNV-1a and MurmurHash3 definitions.
        assert_eq!(StableHash::default().bytes(b"").finish(), 0xEFD0_1F60_BA99_2926);
        assert_eq!(StableHash::default().text("a").number(7).finish(), 0x427F_2348_E91A_0AC4);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let hash = |left: &str, right: &str| StableHash::default().text(left).text(right).finish();
        assert_ne!(hash("ab", "c"), hash("a", "bc"));
    }
}
