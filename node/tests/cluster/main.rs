//! Clusters of real nodes in one process, on loopback ports.

mod contract;
mod health;
mod lone;
mod refusals;
mod support;
mod three;
