//! The body of a batch: its messages as text, each to be read for itself.

use std::fmt;

use hub_core::error::FieldError;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::json::{self, Path, Reader, Shape};
use crate::problem::Problem;

/// Splits a JSON body `{"messages": [...]}`.
pub(super) fn split_json(text: &str, most: usize) -> Result<Vec<&str>, Problem> {
    let shape: Shape<'_> = serde_json::from_str(text).map_err(|error| json::malformed(&error))?;
    let mut errors = Vec::new();
    let is_object = matches!(shape, Shape::Object(_));
    let mut reader = Reader::new(shape, &Path::Root, &mut errors);
    let items = match reader.raw("messages") {
        Some(list) if list.get().starts_with('[') => split_list(list, most)?,
        Some(_) => {
            reader.invalid("messages", "must be an array");
            Vec::new()
        }
        None => {
            if is_object {
                reader.invalid("messages", "is required");
            }
            Vec::new()
        }
    };
    if items.len() > most {
        reader.invalid("messages", format!("must have at most {most} messages"));
    }
    reader.finish();
    if errors.is_empty() { Ok(items) } else { Err(Problem::fields(errors)) }
}

/// Splits NDJSON: one message a line, empty lines left out.
pub(super) fn split_lines(text: &str, most: usize) -> Result<Vec<&str>, Problem> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim_ascii().is_empty()).take(most + 1).collect();
    if lines.len() > most {
        let detail = format!("must have at most {most} messages");
        return Err(Problem::fields(vec![FieldError::invalid("", detail)]));
    }
    Ok(lines)
}

fn split_list(list: &RawValue, most: usize) -> Result<Vec<&str>, Problem> {
    let mut deserializer = serde_json::Deserializer::from_str(list.get());
    deserializer.deserialize_seq(Items { most }).map_err(|error| json::malformed(&error))
}

/// Keeps one item more than are allowed, so that a body full of tiny ones costs no memory.
struct Items {
    most: usize,
}

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while items.len() <= self.most {
            match seq.next_element::<&'de RawValue>()? {
                Some(item) => items.push(item.get()),
                None => return Ok(items),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use hub_core::error::code;

    use super::*;

    #[test]
    fn items_are_kept_as_text() {
        assert_eq!(split_json(r#"{"messages": [ {"a": 1.0} ,7]}"#, 2).unwrap(), [r#"{"a": 1.0}"#, "7"]);
        assert_eq!(split_lines("{\"a\":1}\r\n\n{b\n", 2).unwrap(), ["{\"a\":1}", "{b"]);
    }

    #[test]
    fn too_many_and_other_shapes() {
        for body in [
            r#"{"messages":[1,2,3]}"#,
            r#"{"messages":{}}"#,
            r#"{"messages":[1],"x":1}"#,
            r#"{"messages":[1],"messages":[2]}"#,
            "{}",
            "[]",
            "null",
        ] {
            assert_eq!(split_json(body, 2).unwrap_err().code(), code::INVALID_FIELDS, "{body}");
        }
        assert_eq!(split_json("{\"messages\":[1,}", 2).unwrap_err().code(), code::NOT_JSON);
        assert_eq!(split_lines("1\n2\n3", 2).unwrap_err().code(), code::INVALID_FIELDS);
    }
}
