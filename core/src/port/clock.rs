//! Where time and chance come from.

use std::time::{Duration, Instant};

use crate::id::{MessageId, RequestId};
use crate::time::Timestamp;

/// The clocks of this process. Simulations give their own.
pub trait Clock: Send + Sync + 'static {
    /// The time that goes into entries, messages and claims: near the cluster's time, and never steps back.
    fn now(&self) -> Timestamp;
    /// The wall clock of this machine, as it is: for comparing nodes, never for state.
    fn wall(&self) -> Timestamp;
    /// A clock that only goes forward, for deadlines within this process.
    fn instant(&self) -> Instant;
    /// Time since the machine booted, suspended time included.
    fn since_boot(&self) -> Duration;
}

/// Ids and chance.
pub trait IdSource: Send + Sync + 'static {
    /// A new UUIDv7 whose time part is `now`; ids made by one source rise strictly.
    fn message_id(&self, now: Timestamp) -> MessageId;
    /// A random request id.
    fn request_id(&self) -> RequestId;
    /// Uniform in `0..bound` (0 when `bound` is 0): for jitter and choices.
    fn below(&self, bound: u64) -> u64;
    /// Fills with bytes fit for secrets.
    fn secret(&self, bytes: &mut [u8]);
}
