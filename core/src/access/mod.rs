//! Who calls, and what they may do.

mod principal;
mod scope;

pub use principal::Principal;
pub use scope::{Scope, UnknownScope};
