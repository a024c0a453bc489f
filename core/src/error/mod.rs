//! Every error that a user can meet has a stable code, with its cause and its cure.

mod catalogue;
mod cause;
mod field;

pub use catalogue::{CATALOGUE, Code, Explanation, code};
pub use cause::{chain, find_cause};
pub use field::FieldError;
