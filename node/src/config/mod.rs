//! Configuration: defaults < `message-hub.toml` < environment < flags, read at once and checked whole before anything
//! else happens. [`load`] reports every mistake with the place it came from.

mod check;
mod error;
mod flags;
mod layers;
mod render;
mod schema;
mod sections;
mod value;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use error::{ConfigErrors, Problem, Source};
pub use flags::ServeFlags;
pub use render::{default_toml, show};
pub use schema::Key;
pub use sections::{
    Auth, Config, Delivery, KEYS, Limits, Log, Messages, Node, Postgres, RabbitMq, Raft, Redis, Rest,
    SECTIONS, Targets,
};
pub use value::{ByteSize, HostPort, Raw, Secret, Setting};
pub use words::{LogFormat, RaftProfile};

/// The file that is read when no other is named, if it exists.
pub const DEFAULT_FILE: &str = "message-hub.toml";

/// Where settings come from. Plain data, so that a test can say all of it.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The file that was named; it must exist.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// Settings by flag: path (`section.key`), value, and the flag's name.
    pub flags: Vec<(String, Raw, String)>,
}

/// A value with its origin, for `config show`.
#[derive(Clone, Debug)]
pub struct Effective {
    /// As it was written.
    pub raw: Raw,
    /// Where.
    pub source: Source,
}

/// A configuration that was read without mistakes.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Where each setting that is not at its default came from, by `section.key`.
    pub origins: BTreeMap<String, Effective>,
}

/// Reads all layers and checks them.
///
/// # Errors
/// Every mistake that was found.
pub fn load(inputs: &Inputs) -> Result<Loaded, ConfigErrors> {
    let mut problems = Vec::new();
    let mut values = BTreeMap::new();
    match &inputs.file {
        Some(path) => layers::file(path, true, &mut values, &mut problems),
        None => layers::file(Path::new(DEFAULT_FILE), false, &mut values, &mut problems),
    }
    layers::environment(&inputs.env, &mut values, &mut problems);
    layers::flags(&inputs.flags, &mut values, &mut problems);
    layers::secret_files(&mut values, &mut problems);

    let mut reader = schema::Reader::new(&values, &mut problems);
    let config = Config::read(&mut reader);
    if let Some(config) = config {
        check::check(&config, &values, &mut problems);
        if problems.is_empty() {
            return Ok(Loaded { config, origins: values });
        }
    }
    Err(ConfigErrors(problems))
}

#[cfg(test)]
mod tests;
