//! A strict JSON scanner over raw text (RFC 8259): is it well formed, how deep does it go, what does it hold at the top.
//!
//! It builds no tree and does not recurse, so hostile depth costs nothing, and the text stays exactly as it came.

use std::ops::Range;

/// What the outermost value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// A string, a number, `true`, `false` or `null`.
    Scalar,
}

/// What a scan found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The outermost value.
    pub top: Top,
    /// Deepest nesting of arrays and objects; 0 for a scalar.
    pub depth: usize,
    /// Byte ranges of name (with quotes) and value of each member, if the outermost value is an object.
    pub members: Vec<(Range<usize>, Range<usize>)>,
}

/// Why text was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON.
    #[error("is not JSON at byte {at}")]
    Malformed {
        /// Where reading failed.
        at: usize,
    },
    /// Nested deeper than the limit.
    #[error("is nested deeper than {limit} levels")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
}

/// The JSON pointer (RFC 6901) of a member of the outermost object.
#[must_use]
pub fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Line and column, both from 1, of a byte of the text.
#[must_use]
pub fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    let line = before.iter().filter(|byte| **byte == b'\n').count();
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count();
    (line + 1, column + 1)
}

/// Scans one JSON value. Nesting deeper than `limit` ends the scan with an error.
pub fn scan(text: &str, limit: usize) -> Result<Shape, JsonError> {
    let mut scanner = Scanner { bytes: text.as_bytes(), at: 0, open: Vec::new(), limit, deepest: 0 };
    let mut members = Vec::new();
    let mut name = 0..0;
    let mut value_start = 0;
    scanner.space();
    let top = match scanner.peek() {
        Some(b'{') => Top::Object,
        Some(b'[') => Top::Array,
        _ => Top::Scalar,
    };
    let mut expect = Expect::Value;
    loop {
        scanner.space();
        let start = scanner.at;
        let at_top = scanner.open.as_slice() == [b'{'];
        match expect {
            Expect::Name | Expect::NameOrEnd => {
                if matches!(expect, Expect::NameOrEnd) && scanner.eat(b'}') {
                    scanner.open.pop();
                    expect = Expect::Next;
                    continue;
                }
                scanner.string()?;
                name = if at_top { start..scanner.at } else { name };
                scanner.space();
                scanner.want(b':')?;
                scanner.space();
                value_start = if at_top { scanner.at } else { value_start };
                expect = Expect::Value;
            }
            Expect::ValueOrEnd if scanner.eat(b']') => {
                scanner.open.pop();
                expect = Expect::Next;
            }
            Expect::Value | Expect::ValueOrEnd => expect = scanner.value()?,
            Expect::Next => {
                if at_top && value_start > 0 {
                    let end = trimmed_end(text, value_start..start);
                    members.push((name.clone(), value_start..end));
                    value_start = 0;
                }
                match scanner.next()? {
                    Some(next) => expect = next,
                    None => return Ok(Shape { top, depth: scanner.deepest, members }),
                }
            }
        }
    }
}

fn trimmed_end(text: &str, range: Range<usize>) -> usize {
    text.get(range.clone()).map_or(range.end, |value| range.start + value.trim_end().len())
}

#[derive(Clone, Copy)]
enum Expect {
    Value,
    ValueOrEnd,
    Name,
    NameOrEnd,
    Next,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    open: Vec<u8>,
    limit: usize,
    deepest: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn want(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.eat(byte) { Ok(()) } else { Err(self.malformed()) }
    }

    const fn malformed(&self) -> JsonError {
        JsonError::Malformed { at: self.at }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Reads a scalar, or opens an array or object.
    fn value(&mut self) -> Result<Expect, JsonError> {
        match self.peek() {
            Some(open @ (b'{' | b'[')) => {
                self.at += 1;
                self.open.push(open);
                self.deepest = self.deepest.max(self.open.len());
                if self.open.len() > self.limit {
                    return Err(JsonError::TooDeep { limit: self.limit });
                }
                return Ok(if open == b'{' { Expect::NameOrEnd } else { Expect::ValueOrEnd });
            }
            Some(b'"') => self.string()?,
            Some(b't') => self.word(b"true")?,
            Some(b'f') => self.word(b"false")?,
            Some(b'n') => self.word(b"null")?,
            _ => self.number()?,
        }
        Ok(Expect::Next)
    }

    /// After a value: a comma, the end of what is open, or the end of the text (`None`).
    fn next(&mut self) -> Result<Option<Expect>, JsonError> {
        let Some(open) = self.open.last().copied() else {
            return if self.at == self.bytes.len() { Ok(None) } else { Err(self.malformed()) };
        };
        let (close, more) = if open == b'{' { (b'}', Expect::Name) } else { (b']', Expect::Value) };
        if self.eat(b',') {
            return Ok(Some(more));
        }
        self.want(close)?;
        self.open.pop();
        Ok(Some(Expect::Next))
    }

    fn word(&mut self, word: &[u8]) -> Result<(), JsonError> {
        word.iter().try_for_each(|byte| self.want(*byte))
    }

    fn string(&mut self) -> Result<(), JsonError> {
        self.want(b'"')?;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape()?;
                }
                Some(0x20..) => self.at += 1,
                _ => return Err(self.malformed()),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.malformed());
                    }
                    self.at += 1;
                }
                Ok(())
            }
            _ => Err(self.malformed()),
        }
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.malformed());
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _ = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        Ok(())
    }
}
