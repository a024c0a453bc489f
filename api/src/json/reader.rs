//! Takes the fields of an object one by one, and reports every one that is wrong, doubled, or left over.

use std::borrow::Cow;

use hub_core::error::FieldError;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::object::{MAX_FIELDS, as_str, type_name};
use super::{Fields, Path, Shape};

/// An object that is being read. What is not taken by [`Self::finish`] is unknown.
#[derive(Debug)]
pub struct Reader<'a, 'p, 'e> {
    fields: Fields<'a>,
    path: &'p Path<'p>,
    errors: &'e mut Vec<FieldError>,
    /// It is no object at all: nothing in it is missing besides.
    void: bool,
}

impl<'a, 'p, 'e> Reader<'a, 'p, 'e> {
    /// Starts to read what should be an object; reports it if it is not, and then finds no fields.
    pub fn new(shape: Shape<'a>, path: &'p Path<'p>, errors: &'e mut Vec<FieldError>) -> Self {
        let void = !matches!(shape, Shape::Object(_));
        let fields = match shape {
            Shape::Object(mut fields) => {
                report_doubles(&mut fields, path, errors);
                fields
            }
            Shape::Crowded => {
                errors
                    .push(FieldError::invalid(path.pointer(), format!("has more than {MAX_FIELDS} fields")));
                Vec::new()
            }
            Shape::Other(found) => {
                errors.push(FieldError::invalid(path.pointer(), format!("must be an object, not {found}")));
                Vec::new()
            }
        };
        Self { fields, path, errors, void }
    }

    /// Takes a value as text; null counts as a value.
    pub fn raw(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.fields.iter().position(|(key, _)| key == name)?;
        Some(self.fields.swap_remove(at).1)
    }

    /// Takes a value as text; null counts as absent.
    pub fn value(&mut self, name: &str) -> Option<&'a RawValue> {
        self.raw(name).filter(|value| value.get() != "null")
    }

    /// Takes a string.
    pub fn text(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let value = self.value(name)?;
        let text = as_str(value);
        if text.is_none() {
            self.wrong_type(name, "a string", value);
        }
        text
    }

    /// Takes a string that must be there.
    pub fn required_text(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let before = self.errors.len();
        let text = self.text(name);
        if text.is_none() && self.errors.len() == before && !self.void {
            self.invalid(name, "is required");
        }
        text
    }

    /// Takes an object whose values are strings, in its order; doubled names are reported.
    pub fn pairs(&mut self, name: &str) -> Option<Vec<(Cow<'a, str>, Cow<'a, str>)>> {
        self.object(name, |mut inner| {
            let fields = std::mem::take(&mut inner.fields);
            let mut pairs = Vec::with_capacity(fields.len());
            for (key, value) in fields {
                match as_str(value) {
                    Some(text) => pairs.push((key, text)),
                    None => inner.wrong_type(&key, "a string", value),
                }
            }
            pairs
        })
    }

    /// Takes a value of a type that serde reads; `what` names it for people.
    pub fn typed<T: DeserializeOwned>(&mut self, name: &str, what: &str) -> Option<T> {
        let value = self.value(name)?;
        let parsed = serde_json::from_str(value.get()).ok();
        if parsed.is_none() {
            self.wrong_type(name, what, value);
        }
        parsed
    }

    /// Takes a whole number of `min` to `max`.
    pub fn number(&mut self, name: &str, min: u64, max: u64) -> Option<u64> {
        let value = self.value(name)?;
        match serde_json::from_str::<u64>(value.get()) {
            Ok(number) if (min..=max).contains(&number) => Some(number),
            _ => {
                self.invalid(name, format!("must be a whole number from {min} to {max}"));
                None
            }
        }
    }

    /// Takes an object and reads it with `read`.
    pub fn object<T>(&mut self, name: &str, read: impl FnOnce(Reader<'a, '_, '_>) -> T) -> Option<T> {
        let value = self.value(name)?;
        let path = Path::Key(self.path, name);
        Some(read(Reader::new(shape_of(value), &path, self.errors)))
    }

    /// Takes an array of at most `most` items and reads each with `read`.
    pub fn array<T>(
        &mut self,
        name: &str,
        most: usize,
        mut read: impl FnMut(&'a RawValue, &Path<'_>, &mut Vec<FieldError>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let value = self.value(name)?;
        let Ok(items) = serde_json::from_str::<Vec<&'a RawValue>>(value.get()) else {
            self.wrong_type(name, "an array", value);
            return None;
        };
        if items.len() > most {
            self.invalid(name, format!("must have at most {most} items, not {}", items.len()));
            return None;
        }
        let path = Path::Key(self.path, name);
        let read_one = |(index, item)| read(item, &Path::Index(&path, index), self.errors);
        Some(items.into_iter().enumerate().filter_map(read_one).collect())
    }

    /// Takes an array of strings.
    pub fn texts(&mut self, name: &str, most: usize) -> Option<Vec<Cow<'a, str>>> {
        self.array(name, most, |item, path, errors| {
            let text = as_str(item);
            if text.is_none() {
                errors.push(FieldError::invalid(path.pointer(), wrong("a string", item)));
            }
            text
        })
    }

    /// Refuses a field that is known but belongs to a later version. Null counts as absent.
    pub fn later(&mut self, name: &str) {
        if self.value(name).is_some() {
            self.errors.push(FieldError::not_built(self.path.pointer_to(name)));
        }
    }

    /// Reports `name` as wrong.
    pub fn invalid(&mut self, name: &str, detail: impl Into<String>) {
        self.errors.push(FieldError::invalid(self.path.pointer_to(name), detail));
    }

    /// Reports a value of `name` that belongs to a later version.
    pub fn later_value(&mut self, name: &str) {
        self.errors.push(FieldError::not_built(self.path.pointer_to(name)));
    }

    /// Nothing was reported so far.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.errors.is_empty()
    }

    /// Reports every field that nobody took.
    pub fn finish(self) {
        for (name, _) in &self.fields {
            self.errors.push(FieldError::invalid(self.path.pointer_to(name), "is not a known field"));
        }
    }

    fn wrong_type(&mut self, name: &str, what: &str, value: &RawValue) {
        self.invalid(name, wrong(what, value));
    }
}

/// A value that was checked before, as a shape.
pub fn shape_of(value: &RawValue) -> Shape<'_> {
    serde_json::from_str(value.get()).unwrap_or_else(|_| Shape::Other(type_name(value)))
}

fn wrong(what: &str, value: &RawValue) -> String {
    let found = type_name(value);
    if found == what {
        format!("is not {what} that can be read")
    } else {
        format!("must be {what}, not {found}")
    }
}

fn report_doubles(fields: &mut Fields<'_>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut at = 1;
    while at < fields.len() {
        let (before, rest) = fields.split_at(at);
        let doubled = rest.first().is_some_and(|(key, _)| before.iter().any(|(earlier, _)| earlier == key));
        if doubled {
            let (key, _) = fields.remove(at);
            errors.push(FieldError::invalid(path.pointer_to(&key), "is given more than once"));
        } else {
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<String>, Option<u64>, Vec<String>) {
        let mut errors = Vec::new();
        let mut reader = Reader::new(serde_json::from_str(text).unwrap(), &Path::Root, &mut errors);
        let name = reader.text("name").map(Cow::into_owned);
        let size = reader.number("size", 1, 10);
        reader.later("mode");
        reader.object("inner", |mut inner| {
            inner.text("a");
            inner.finish();
        });
        reader.finish();
        (name, size, errors.into_iter().map(|error| format!("{} {}", error.pointer, error.detail)).collect())
    }

    #[test]
    fn every_mistake_is_reported() {
        let (name, size, errors) =
            read(r#"{"name":7,"size":11,"mode":"x","inner":{"a":"1","b":2},"name":"again","un/known":1}"#);
        assert_eq!((name, size), (None, None));
        assert_eq!(
            errors,
            [
                "/name is given more than once",
                "/name must be a string, not a number",
                "/size must be a whole number from 1 to 10",
                "/mode is not supported by this version",
                "/inner/b is not a known field",
                "/un~1known is not a known field",
            ]
        );
    }

    #[test]
    fn null_is_absent() {
        assert_eq!(read(r#"{"name":null,"size":null,"mode":null}"#), (None, None, vec![]));
        assert_eq!(read(r#"{"name":"x","size":3}"#), (Some("x".to_owned()), Some(3), vec![]));
    }

    #[test]
    fn what_is_no_object_is_said_once() {
        assert_eq!(read("[1]").2, [" must be an object, not an array"]);
    }
}
