//! The hub's process: configuration, wiring, workers, lifecycle and command line.
