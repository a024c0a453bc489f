//! `serve`: one node from its start to its end, with the signals that end it.

use hub_core::error::{chain, code};
use tracing::{error, info, warn};

use crate::coded::CodedError;
use crate::config::Loaded;
use crate::lifecycle::{Failure, Signals};
use crate::telemetry;
use crate::wiring::Node;

/// Runs a node until a signal or a failure ends it.
///
/// # Errors
/// It did not start, or could not go on.
pub fn run(loaded: Loaded, rejoin: bool) -> Result<(), CodedError> {
    telemetry::init(&loaded.config.log)
        .map_err(|error| CodedError::new(code::CONFIG, "logging cannot be set up").because(error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("hub")
        .build()
        .map_err(|error| CodedError::new(code::IO, "the runtime cannot be started").because(error))?;
    let outcome = runtime.block_on(serve(loaded, rejoin));
    // What still blocks a thread (a disk that hangs) must not keep the process.
    runtime.shutdown_background();
    outcome
}

async fn serve(loaded: Loaded, rejoin: bool) -> Result<(), CodedError> {
    let mut signals = Signals::catch()
        .map_err(|error| CodedError::new(code::IO, "signals cannot be caught").because(error))?;
    let node = tokio::select! {
        started = Node::start(loaded.config, rejoin) => started?,
        signal = signals.next() => {
            info!(signal, "stopped before the node was up");
            return Ok(());
        }
    };
    info!(
        node = node.endpoints().node_id.0,
        rest = node.endpoints().rest_url,
        raft = node.endpoints().raft_addr,
        "node is up"
    );
    let failure = tokio::select! {
        signal = signals.next() => {
            info!(signal, "draining; a second signal ends the node at once");
            None
        }
        failure = node.failed() => Some(failure),
    };
    let tasks = node.tasks();
    let stopped = tokio::select! {
        () = node.stop(failure.is_none()) => true,
        signal = signals.next() => {
            warn!(signal, "ended at once");
            tasks.abort();
            false
        }
    };
    match failure {
        Some(failure) => Err(fatal(&failure)),
        None if stopped => Ok(()),
        None => Err(CodedError::new(code::ABORTED, "a second signal ended the node before it was drained")),
    }
}

/// What a failure of a running node is to people: its own code if it has one.
fn fatal(failure: &Failure) -> CodedError {
    error!(task = failure.task, error = %failure.error, "the node stops");
    match failure.error.downcast_ref::<CodedError>() {
        Some(coded) => {
            let fatal = CodedError::new(coded.code, format!("{} failed: {}", failure.task, coded.detail));
            match &coded.source {
                Some(source) => fatal.because(chain(&**source)),
                None => fatal,
            }
        }
        None => {
            CodedError::new(code::INTERNAL, format!("{} failed: {}", failure.task, chain(&**failure.error)))
        }
    }
}
