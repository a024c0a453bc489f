//! Log lines on stderr: text for people, JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::{Log, LogFormat};

/// Libraries that say too much at `info`. What `lapin` calls an error is a lost connection, which the hub says itself.
const QUIET: &str = "openraft=error,h2=warn,hyper=warn,tonic=warn,tower=warn,sqlx=warn,raft_log=error,chunked_wal=error,\
     lapin=off";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level cannot be read.
    #[error("log level is not valid")]
    Level(#[from] ParseError),
    /// Something else has set it up.
    #[error("logging is set up already")]
    Twice,
}

/// The filter for a level such as `info` or `info,hub_raft=debug`. Libraries stay quiet unless they are named.
///
/// # Errors
/// The text is no filter.
pub fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(format!("{QUIET},{level}"))
}

/// Sends log lines to stderr from now on; a panic is a log line too.
///
/// # Errors
/// The level is wrong, or it was done before.
pub fn init(options: &Log) -> Result<(), LogError> {
    let json = match options.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&options.level)?)
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr);
    let done = if json {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    done.map_err(|_| LogError::Twice)?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(place, message, "panic");
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_library_speaks_when_it_is_named() {
        let filter = |level| filter(level).unwrap().to_string();
        assert!(filter("info").contains("lapin=off"));
        assert!(!filter("info,lapin=error").contains("lapin=off"));
    }
}
