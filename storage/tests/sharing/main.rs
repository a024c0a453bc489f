//! The shared cache: a node's own, and Redis with its faults.

#![cfg(test)]

mod faults;
mod suite;
mod support;
