//! The replicated control state machine: members, the service registry, and the table of repeated requests.

mod command;
mod member;
mod reply;
mod state;

pub use command::{Command, HealthChange, Registration};
pub use member::Member;
pub use reply::{Refusal, Reply};
pub use state::State;
