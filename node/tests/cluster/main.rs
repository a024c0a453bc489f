//! Clusters of real nodes in one process, on loopback ports.

mod cache;
mod contract;
mod database;
mod health;
mod keys;
mod lone;
mod moving;
mod recovery;
mod refusals;
mod support;
mod three;
mod tls;
