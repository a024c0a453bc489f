//! What commands and the start share about the database of the messages: its URL, and what its refusals are called.

use hub_core::error::{Code, code};
use hub_storage::postgres::SetupError;
use secrecy::SecretString;

use crate::coded::CodedError;
use crate::config::Secret;

/// The URL as the store takes it.
#[must_use]
pub fn url_of(url: &Secret) -> SecretString {
    SecretString::from(url.expose().to_owned())
}

/// A refusal with its code.
#[must_use]
pub fn refused(error: SetupError) -> CodedError {
    CodedError::new(code_of(&error), error.to_string())
}

/// The code of a refusal.
#[must_use]
pub const fn code_of(error: &SetupError) -> Code {
    match error {
        SetupError::Url(_) => code::CONFIG,
        SetupError::Unreachable { .. } | SetupError::Failed(_) => code::DATABASE_SILENT,
        SetupError::Login { .. } => code::DATABASE_LOGIN,
        SetupError::TooOld { .. } => code::DATABASE_OLD,
        SetupError::Newer { .. } => code::DATABASE_NEWER,
        SetupError::Foreign(_) => code::DATABASE_FOREIGN,
        SetupError::HalfCopied => code::COPY_UNFINISHED,
        SetupError::Denied(_) => code::DATABASE_RIGHTS,
    }
}
