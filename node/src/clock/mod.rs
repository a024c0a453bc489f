//! The clocks of a real node: the machine's, the hub time that is drawn out of them, and the worker that compares them
//! with those of the other nodes.

mod hub;
mod machine;
mod sampler;

pub use hub::HubClock;
pub use machine::{Machine, SystemMachine};
pub use sampler::{PeerClocks, Sampler, SamplerMetrics};
