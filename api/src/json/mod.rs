//! Reading JSON bodies: parsed once, every mistake reported by its pointer, embedded values kept as text.

mod object;
mod path;
mod reader;

pub use object::{Fields, Shape};
pub use path::Path;
pub use reader::{Reader, shape_of};

use hub_core::error::{FieldError, code};

use crate::problem::Problem;

/// The body as text.
///
/// # Errors
/// `NOT_JSON` if it is not UTF-8 or empty.
pub fn text(bytes: &[u8]) -> Result<&str, Problem> {
    match std::str::from_utf8(bytes) {
        Ok("") => Err(Problem::new(code::NOT_JSON, "the body is empty")),
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => Err(Problem::new(
            code::NOT_JSON,
            format!("the body is not UTF-8: invalid byte at offset {}", error.valid_up_to()),
        )),
    }
}

/// Starts to read a body that should be an object; what is wrong with its fields goes to `errors`.
///
/// # Errors
/// `NOT_JSON` if it is no JSON.
pub fn read_object<'a, 'e>(
    body: &'a [u8],
    errors: &'e mut Vec<FieldError>,
) -> Result<Reader<'a, 'static, 'e>, Problem> {
    let shape: Shape<'a> = serde_json::from_str(text(body)?).map_err(|error| malformed(&error))?;
    Ok(Reader::new(shape, &Path::Root, errors))
}

/// A parse error as a problem, with line and column.
#[must_use]
pub fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(code::NOT_JSON, format!("the body is not well-formed JSON: {error}"))
}
