//! The message store on real Postgres servers: the conformance suite, faults, many hubs at once, the days.

#![cfg(test)]

mod base;
mod conformance;
mod copying;
mod days;
mod faults;
mod many;
mod proxy;
mod setup;
