//! The clocks of a real node.

mod system;

pub use system::SystemClock;
