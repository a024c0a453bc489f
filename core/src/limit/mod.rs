//! Rate limits: how many messages may be sent in a while, and the pure decision over one request's demands.

mod ask;
mod decide;
mod meter;
mod rate;

pub use ask::{Ask, Demand, Fate, Key, Ruling, Verdict};
pub use decide::decide;
pub use meter::Meter;
pub use rate::{MOST_PERMITS, Rate};
