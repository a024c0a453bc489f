//! Circuit breakers: what each node sees of a target, what the cluster agrees on, and what a node may do now.
//!
//! A node counts its own calls in a [`Window`] and stops by itself the moment its verdict turns ([`Local`]). The cluster
//! keeps one [`Record`] for each service; it sees changed verdicts, results of probes and operators, never single calls.

mod config;
mod evidence;
mod gate;
mod lease;
mod local;
mod order;
mod record;
mod report;
mod transition;
mod verdict;
mod vote;
mod window;

pub use config::Config;
pub use evidence::{Call, Counts, Sight};
pub use gate::{Gate, Pass};
pub use lease::Outcome;
pub use local::{Finished, Latch, Local};
pub use order::{Denied, MAX_MODE, Order};
pub use record::{Closed, Mode, Phase, Probe, Record, State, Vote};
pub use report::{Report, Reporting, Stand};
pub use transition::{Context, Refused, Transition, Who, Why, open_time};
pub use verdict::Cause;
pub use window::Window;
