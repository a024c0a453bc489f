//! Clusters of real nodes in one process, on loopback ports.

mod lone;
mod refusals;
mod support;
mod three;
