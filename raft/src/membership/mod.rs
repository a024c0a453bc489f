//! Who belongs to the groups: nodes that ask to join, learners that become voters by themselves, and the group `messages`
//! that follows the group `control`.

mod admitter;
mod join;
mod keeper;
mod plan;

pub use admitter::ControlGroup;
pub use join::{Card, JoinError, Joined, Joiner};
pub use keeper::{Keeper, KeeperOptions};
