//! What can be wrong with a configuration, and where it was said.

use std::fmt;
use std::path::PathBuf;

use hub_core::error::{Code, code};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Built in.
    Default,
    /// A line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Env(String),
    /// A flag of the command line.
    Flag(String),
    /// A file that holds one secret, and who named it.
    SecretFile {
        /// The file.
        path: PathBuf,
        /// The setting that named it.
        by: Box<Source>,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::SecretFile { path, by } => write!(f, "{} (named by {by})", path.display()),
        }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its code; most are `HUB-2001`.
    pub code: Code,
    /// The setting, `section.key`, or what else is wrong.
    pub key: String,
    /// Where it was said.
    pub source: Source,
    /// What is wrong with it.
    pub detail: String,
}

impl Problem {
    /// A mistake without a code of its own.
    pub(super) fn new(key: impl Into<String>, source: Source, detail: impl Into<String>) -> Self {
        Self { code: code::CONFIG, key: key.into(), source, detail: detail.into() }
    }

    /// With its own code.
    pub(super) const fn coded(mut self, code: Code) -> Self {
        self.code = code;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code != code::CONFIG {
            write!(f, "[{}] ", self.code)?;
        }
        write!(f, "{}: {}", self.key, self.detail)?;
        if self.source != Source::Default {
            write!(f, " ({})", self.source)?;
        }
        Ok(())
    }
}

/// All mistakes of a configuration; never empty.
#[derive(Clone, Debug, thiserror::Error)]
pub struct ConfigErrors(pub Vec<Problem>);

impl ConfigErrors {
    /// The code for the whole: that of the mistakes if they share one, else `HUB-2001`.
    #[must_use]
    pub fn code(&self) -> Code {
        match self.0.split_first() {
            Some((first, rest)) if rest.iter().all(|problem| problem.code == first.code) => first.code,
            _ => code::CONFIG,
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}
