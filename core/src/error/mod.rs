//! Every error that a user can meet has a stable code, with its cause and its cure.

mod catalogue;
mod field;

pub use catalogue::{CATALOGUE, Code, Explanation, code};
pub use field::FieldError;
