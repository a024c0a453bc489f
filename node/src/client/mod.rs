//! A small client of the hub's own REST interface: several nodes, deadlines, problems as values.

mod answer;
mod call;
mod error;
mod hub;
mod problem;
pub(crate) mod source;

pub use answer::Answer;
pub use call::Call;
pub(crate) use call::{push_query, segment};
pub use error::Error;
pub use hub::{Client, Options};
pub use problem::{FieldProblem, Problem};
