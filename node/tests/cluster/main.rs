//! Clusters of real nodes in one process, on loopback ports.

mod cache;
mod contract;
mod database;
mod health;
mod keys;
mod lone;
mod recovery;
mod refusals;
mod support;
mod three;
mod tls;
