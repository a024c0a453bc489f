//! An object with its values left as text: one pass over the body checks its syntax, and values are never rebuilt.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

/// The fields of an object in their order, duplicates included.
pub type Fields<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// The most fields that an object may have: no call knows nearly as many.
pub(super) const MAX_FIELDS: usize = 128;

/// A value that should be an object.
#[derive(Debug)]
pub enum Shape<'a> {
    /// It is.
    Object(Fields<'a>),
    /// It is, with more fields than any call has.
    Crowded,
    /// It is something else; its type.
    Other(&'static str),
}

impl<'de: 'a, 'a> Deserialize<'de> for Shape<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::with_capacity(8);
        while let Some(key) = map.next_key_seed(Key)? {
            fields.push((key, map.next_value::<&'de RawValue>()?));
            if fields.len() > MAX_FIELDS {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return Ok(Shape::Crowded);
            }
        }
        Ok(Shape::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Shape::Other("an array"))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Shape::Other("a boolean"))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Shape::Other("a number"))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Shape::Other("a number"))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Shape::Other("a number"))
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Shape::Other("a string"))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Shape::Other("null"))
    }
}

/// A key, borrowed where it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// The text of a JSON string value; `None` if it is not a string.
pub(super) fn as_str(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get();
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if inner.bytes().any(|byte| byte == b'\\') {
        serde_json::from_str::<String>(text).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// The type of a value, for people.
pub(super) fn type_name(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Shape<'_> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn values_are_kept_as_text() {
        let Shape::Object(fields) = shape(r#" { "a" : {"z":1.0,"a": [1e400]} , "\u0062":"x" } "#) else {
            panic!("not an object")
        };
        assert_eq!(fields[0].1.get(), r#"{"z":1.0,"a": [1e400]}"#);
        assert_eq!(fields[1].0, "b");
    }

    #[test]
    fn other_shapes_are_named() {
        for (text, name) in [
            ("[[1],{}]", "an array"),
            ("7", "a number"),
            ("-7.5", "a number"),
            ("null", "null"),
            ("true", "a boolean"),
        ] {
            assert!(matches!(shape(text), Shape::Other(found) if found == name), "{text}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let bomb = format!("{{\"content\":{}{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert!(matches!(shape(&bomb), Shape::Object(_)));
        let bare = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert!(matches!(shape(&bare), Shape::Other("an array")));
        let open = "[".repeat(1_000_000);
        assert!(serde_json::from_str::<Shape<'_>>(&open).is_err());
    }

    #[test]
    fn crowds_are_not_counted_out() {
        let fields: Vec<String> = (0..200_000).map(|at| format!("\"f{at}\":1")).collect();
        assert!(matches!(shape(&format!("{{{}}}", fields.join(","))), Shape::Crowded));
    }

    #[test]
    fn strings_are_unescaped_only_when_needed() {
        let raw: &RawValue = serde_json::from_str(r#""plain""#).unwrap();
        assert!(matches!(as_str(raw), Some(Cow::Borrowed("plain"))));
        let raw: &RawValue = serde_json::from_str(r#""a\u00e9\n""#).unwrap();
        assert_eq!(as_str(raw).unwrap(), "aé\n");
        let raw: &RawValue = serde_json::from_str("12").unwrap();
        assert_eq!(as_str(raw), None);
    }
}
