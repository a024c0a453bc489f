//! The replicated control state machine: members, the service registry, breakers, and the table of repeated requests.

mod breaker_command;
mod breakers;
mod command;
mod machine;
mod member;
mod members;
mod reply;
mod requests;
mod services;
mod state;
mod wire;

pub use breaker_command::{BreakerChange, BreakerCommand};
pub use command::{Command, HealthChange, Registration};
pub use machine::Machine;
pub use member::Member;
pub use reply::{Refusal, Reply};
pub use state::State;
