//! Ids and chance of a real node.

use std::sync::{Mutex, PoisonError};

use hub_core::id::{MessageId, RequestId};
use hub_core::port::IdSource;
use hub_core::time::Timestamp;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use uuid::{Builder, Uuid};

/// Bits of a UUIDv7 behind its time, version and variant.
const TAIL_BITS: u32 = 74;

/// UUIDv7s that rise strictly, secrets from the system's generator, and a fast generator for jitter.
pub struct Ids {
    state: Mutex<State>,
}

struct State {
    random: SmallRng,
    /// Time part of the last id, in milliseconds.
    millis: u64,
    /// The bits behind it, counted up within one millisecond.
    tail: u128,
}

impl Default for Ids {
    fn default() -> Self {
        Self::new()
    }
}

impl Ids {
    /// Seeded by the system.
    #[must_use]
    pub fn new() -> Self {
        let mut seed = <SmallRng as SeedableRng>::Seed::default();
        fill(&mut seed);
        Self { state: Mutex::new(State { random: SmallRng::from_seed(seed), millis: 0, tail: 0 }) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// The next id: a later time starts a new random tail, the same (or an earlier) time counts the tail up.
    fn next(&mut self, now: Timestamp) -> Uuid {
        let now = u64::try_from(now.as_millis()).unwrap_or(0);
        if now > self.millis {
            self.millis = now;
            self.fresh_tail();
        } else {
            self.tail += 1 + u128::from(self.random.random::<u32>());
            if self.tail >> TAIL_BITS != 0 {
                self.millis += 1;
                self.fresh_tail();
            }
        }
        let high = (self.tail >> 62) & 0xfff;
        let low = self.tail & ((1 << 62) - 1);
        let bits = (u128::from(self.millis & 0xffff_ffff_ffff) << 80)
            | (0x7 << 76)
            | (high << 64)
            | (0b10 << 62)
            | low;
        Uuid::from_u128(bits)
    }

    /// Random, with the top bit clear: room to count.
    fn fresh_tail(&mut self) {
        self.tail = self.random.random::<u128>() >> (128 - TAIL_BITS + 1);
    }
}

impl IdSource for Ids {
    fn message_id(&self, now: Timestamp) -> MessageId {
        MessageId(self.with(|state| state.next(now)))
    }

    fn request_id(&self) -> RequestId {
        RequestId(Builder::from_random_bytes(self.with(|state| state.random.random())).into_uuid())
    }

    fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.with(|state| state.random.random_range(0..bound)) }
    }

    fn secret(&self, bytes: &mut [u8]) {
        fill(bytes);
    }
}

/// Bytes of the system's generator. Without one nothing here is safe, so the process ends.
fn fill(bytes: &mut [u8]) {
    if aws_lc_rs::rand::fill(bytes).is_err() {
        tracing::error!("the system's random generator does not answer");
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_7_carry_the_time_and_rise_even_when_the_clock_steps_back() {
        let ids = Ids::new();
        let start = 1_795_424_100_000;
        let mut last = ids.message_id(Timestamp::from_millis(start));
        assert_eq!(last.0.get_version_num(), 7);
        assert_eq!(last.0.get_variant(), uuid::Variant::RFC4122);
        assert_eq!((last.0.as_u128() >> 80) as i64, start);
        for step in 0..100_000_i64 {
            let id = ids.message_id(Timestamp::from_millis(start + step % 7));
            assert!(id > last);
            last = id;
        }
        assert!((last.0.as_u128() >> 80) as i64 - start < 1_000);
    }

    #[test]
    fn the_tail_never_spills_into_the_version() {
        let ids = Ids::new();
        ids.with(|state| {
            state.millis = 5;
            state.tail = (1 << TAIL_BITS) - 1;
        });
        let id = ids.message_id(Timestamp::from_millis(5)).0;
        assert_eq!((id.as_u128() >> 80, id.get_version_num()), (6, 7));
    }

    #[test]
    fn below_keeps_its_bound() {
        let ids = Ids::new();
        assert_eq!(ids.below(0), 0);
        assert!((0..1_000).all(|_| ids.below(3) < 3));
    }

    #[test]
    fn request_ids_and_secrets_differ() {
        let ids = Ids::new();
        assert_ne!(ids.request_id(), ids.request_id());
        let (mut a, mut b) = ([0; 32], [0; 32]);
        ids.secret(&mut a);
        ids.secret(&mut b);
        assert_ne!(a, b);
    }
}
