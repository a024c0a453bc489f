//! Time and chance of a command-line process, which has no cluster to take them from.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A clock that only goes forward.
#[expect(
    clippy::disallowed_methods,
    reason = "the command line measures real time; nothing here is simulated"
)]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// Seconds since the Unix epoch, by this machine's wall clock.
#[expect(clippy::disallowed_methods, reason = "tokens are dated by the wall clock of who makes them")]
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Fills with bytes fit for secrets.
///
/// # Errors
/// When the system's source of randomness fails.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), NoRandomness> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| NoRandomness)
}

/// A new key for one request: 32 hexadecimal digits.
///
/// # Errors
/// When the system's source of randomness fails.
pub(crate) fn request_key() -> Result<String, NoRandomness> {
    let mut bytes = [0_u8; 16];
    fill(&mut bytes)?;
    Ok(uuid::Uuid::from_bytes(bytes).simple().to_string())
}

/// The system gave no random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system's source of randomness failed")]
pub struct NoRandomness;
