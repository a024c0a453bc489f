//! Property tests: the domain against plain models that share no code with it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod address;
mod breaker;
mod control;
mod delivery;
mod draft;
mod envelope;
mod fairness;
mod json;
mod leader_clock;
mod limit;
mod placing;
