//! Errors that end a start or a running node, each with its code, cause and cure.

use std::fmt::Write;

use hub_core::error::{CATALOGUE, Code, Explanation, code};
use hub_raft::OpenError;
use hub_storage::sqlite;

use crate::config::ConfigErrors;

/// Why a node does not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("[{code}] {detail}")]
pub struct CodedError {
    /// What kind of error, in the catalogue.
    pub code: Code,
    /// What exactly happened, here and now; may have several lines.
    pub detail: String,
    /// What is behind it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl CodedError {
    /// Without anything behind it.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), source: None }
    }

    /// With the error behind it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the catalogue says of its code.
    #[must_use]
    pub fn explanation(&self) -> Option<&'static Explanation> {
        CATALOGUE.iter().find(|explanation| explanation.code == self.code)
    }

    /// The exit code of the process: 2 for a configuration that is wrong, 3 for any other start that was refused, 1 for
    /// what failed.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.code {
            code::CONFIG | code::NOT_BUILT | code::NO_KEY => 2,
            code::INTERNAL | code::IO | code::ABORTED | code::COPY_INTERRUPTED => 1,
            _ => 3,
        }
    }

    /// As one block for people: code and title, what happened, what to do.
    #[must_use]
    pub fn block(&self) -> String {
        let mut text = format!("error {}", self.code);
        if let Some(explanation) = self.explanation() {
            let _ = write!(text, ": {}", explanation.title);
        }
        for line in self.detail.lines() {
            let _ = write!(text, "\n  {line}");
        }
        let mut behind = self.source.as_deref().map(|source| source as &dyn std::error::Error);
        while let Some(source) = behind {
            let _ = write!(text, "\n  because: {source}");
            behind = source.source();
        }
        if let Some(explanation) = self.explanation() {
            let _ = write!(text, "\n  cure: {}", explanation.cure);
        }
        text
    }
}

impl From<OpenError> for CodedError {
    fn from(error: OpenError) -> Self {
        let coded = Self::new(error.code(), error.to_string());
        match error {
            OpenError::Io { source, .. } => coded.because(source),
            OpenError::Damaged { .. } | OpenError::Start { .. } => coded,
        }
    }
}

/// The message database could not be opened.
impl From<sqlite::Fault> for CodedError {
    fn from(fault: sqlite::Fault) -> Self {
        let code = match &fault {
            sqlite::Fault::Corrupt(_) => code::DAMAGED,
            sqlite::Fault::File { source, .. } => Code::of_io(source),
            sqlite::Fault::Sql { .. } => code::IO,
        };
        Self::new(code, "the message database cannot be opened").because(fault)
    }
}

impl From<ConfigErrors> for CodedError {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(errors.code(), errors.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_cannot_be_opened_says_once_where_and_why() {
        let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = CodedError::from(OpenError::Io { path: "/data/control/log".into(), source });
        assert_eq!(error.code, code::NOT_WRITABLE);
        let block = error.block();
        assert_eq!(block.matches("/data/control/log").count(), 1, "{block}");
        assert!(block.contains("because: permission denied"), "{block}");
    }

    #[test]
    fn a_block_says_code_what_and_cure() {
        let error = CodedError::new(code::PORT_IN_USE, "127.0.0.1:8200 is taken")
            .because(std::io::Error::other("address in use"));
        let block = error.block();
        for wanted in
            ["HUB-2003: Port in use", "127.0.0.1:8200 is taken", "because: address in use", "cure: "]
        {
            assert!(block.contains(wanted), "{block}");
        }
    }
}
