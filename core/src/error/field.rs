//! One bad field of a request.

use serde::Serialize;

use super::{Code, code};

/// What is wrong with one field. All bad fields of a request are reported together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) of the field in the request's body.
    pub pointer: String,
    /// The code that fits this field alone.
    #[serde(serialize_with = "as_text")]
    pub code: Code,
    /// What is wrong, for people; reads on from the field's name.
    pub detail: String,
}

fn as_text<S: serde::Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(code)
}

impl FieldError {
    /// A field that is missing, malformed or out of range.
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code: code::INVALID_FIELDS, detail: detail.into() }
    }

    /// A field that is larger than its limit.
    pub fn too_large(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code: code::TOO_LARGE, detail: detail.into() }
    }

    /// The same error, of a part of a larger body: `prefix` is the part's JSON pointer.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        self.pointer.insert_str(0, prefix);
        self
    }

    /// A field that belongs to a later version.
    pub fn not_built(pointer: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            code: code::NOT_BUILT,
            detail: "is not supported by this version".into(),
        }
    }
}
