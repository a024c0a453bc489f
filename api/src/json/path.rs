//! Where in a body a value stands. Written out only when there is something to report.

use std::borrow::Cow;

/// A place in a JSON document, as a chain up to its root.
#[derive(Clone, Copy, Debug)]
pub enum Path<'a> {
    /// The document itself.
    Root,
    /// A field of an object.
    Key(&'a Path<'a>, &'a str),
    /// An item of an array.
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// As a JSON pointer (RFC 6901).
    #[must_use]
    pub fn pointer(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    /// The pointer of the field `key` in this place.
    #[must_use]
    pub fn pointer_to(&self, key: &str) -> String {
        Path::Key(self, key).pointer()
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Root => {}
            Self::Key(parent, key) => {
                parent.write(out);
                out.push('/');
                out.push_str(&escape(key));
            }
            Self::Index(parent, index) => {
                parent.write(out);
                out.push('/');
                out.push_str(&index.to_string());
            }
        }
    }
}

fn escape(key: &str) -> Cow<'_, str> {
    if key.contains(['~', '/']) {
        Cow::Owned(key.replace('~', "~0").replace('/', "~1"))
    } else {
        Cow::Borrowed(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_escaped() {
        let messages = Path::Key(&Path::Root, "messages");
        let third = Path::Index(&messages, 2);
        assert_eq!(third.pointer_to("a/b~c"), "/messages/2/a~1b~0c");
        assert_eq!(Path::Root.pointer(), "");
    }
}
