//! The broker's side on real servers: the conformance suite, and what a broker does to those who rely on it.

mod conformance;
mod faults;
mod hub;
mod publishing;
