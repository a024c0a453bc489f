//! The workers: what a node does besides answering requests.

pub mod delivery;
