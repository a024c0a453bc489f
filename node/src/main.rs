//! The `message-hub` binary.

fn main() {}
