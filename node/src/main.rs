//! The `message-hub` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    hub_node::cli::main()
}
