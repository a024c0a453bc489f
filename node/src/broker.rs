//! What commands and the start share about the broker: its options, and what its refusals are called.

use hub_core::error::{Code, code};
use hub_storage::rabbitmq::{Error, Options};

use crate::coded::CodedError;
use crate::config::Config;
use crate::database::url_of;

/// The broker that is configured, if one is.
#[must_use]
pub fn options(config: &Config) -> Option<Options> {
    let settings = &config.rabbitmq;
    settings.url.as_ref().map(|url| Options::new(url_of(url), settings.queue_prefix.clone()))
}

/// A refusal with its code.
#[must_use]
pub fn refused(error: Error) -> CodedError {
    CodedError::new(code_of(&error), error.to_string()).because(error)
}

/// The code of a refusal.
#[must_use]
pub const fn code_of(error: &Error) -> Code {
    match error {
        Error::Url(_) => code::CONFIG,
        Error::Credentials(_) | Error::VirtualHost(_) => code::BROKER_LOGIN,
        Error::Rights { .. } => code::BROKER_RIGHTS,
        Error::Arguments { .. } => code::BROKER_QUEUE,
        Error::Unreachable(_) | Error::Timeout(_) | Error::Broker { .. } => code::BROKER_SILENT,
    }
}
