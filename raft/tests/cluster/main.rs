//! Clusters of real groups over real connections, in one process.

mod faults;
mod lone;
mod support;
mod three;
mod toy;
