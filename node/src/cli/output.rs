//! The one place that prints: data on standard output, everything else on standard error.

use std::io::{IsTerminal as _, Write as _};

use bytes::Bytes;
use comfy_table::{ContentArrangement, Table, presets};
use hub_core::error::chain;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Failure;
use super::args::Format;
use crate::client::Error;

/// A column of a table, or a line of one item: its title and the JSON pointer to its value.
pub(crate) type Column = (&'static str, &'static str);

/// Prints data in the format that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
    #[serde(default)]
    next_cursor: Option<String>,
}

impl Output {
    pub(crate) const fn new(format: Format) -> Self {
        Self { format }
    }

    /// People read it.
    pub(crate) fn is_table(self) -> bool {
        self.format == Format::Table
    }

    /// A page of items as the hub sent it: `{items, next_cursor}`.
    pub(crate) fn page(self, body: &Bytes, columns: &[Column]) -> Result<(), Failure> {
        if self.format == Format::Json {
            return self.raw(body);
        }
        let page: Page<'_> = serde_json::from_slice(body).map_err(|source| Error::Answer { source })?;
        if self.format == Format::Jsonl {
            for item in &page.items {
                print(one_line(item.get()).as_bytes())?;
            }
        } else {
            let mut table = new_table(columns.iter().map(|(title, _)| *title));
            for item in &page.items {
                let item: Value =
                    serde_json::from_str(item.get()).map_err(|source| Error::Answer { source })?;
                table.add_row(columns.iter().map(|(_, pointer)| cell(item.pointer(pointer))));
            }
            print(table.trim_fmt().as_bytes())?;
        }
        if let Some(cursor) = page.next_cursor {
            note(&format!("more: --cursor {cursor}"));
        }
        Ok(())
    }

    /// One item: a line for each column that has a value.
    pub(crate) fn item(self, body: &Bytes, columns: &[Column]) -> Result<(), Failure> {
        if !self.is_table() {
            return self.raw(body);
        }
        let item: Value = serde_json::from_slice(body).map_err(|source| Error::Answer { source })?;
        let mut table = new_table([]);
        for (title, pointer) in columns {
            let text = cell(item.pointer(pointer));
            if !text.is_empty() {
                table.add_row([(*title).to_owned(), text]);
            }
        }
        print(table.trim_fmt().as_bytes())
    }

    /// A list within one item, for people: nothing if it is empty.
    pub(crate) fn part(self, body: &Bytes, list: &str, columns: &[Column]) -> Result<(), Failure> {
        let item: Value = serde_json::from_slice(body).map_err(|source| Error::Answer { source })?;
        let parts = item.pointer(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if parts.is_empty() {
            return Ok(());
        }
        let mut table = new_table(columns.iter().map(|(title, _)| *title));
        table.add_rows(
            parts.iter().map(|part| columns.iter().map(|(_, pointer)| cell(part.pointer(pointer)))),
        );
        print(format!("\n{}", table.trim_fmt()).as_bytes())
    }

    /// Rows made here; `document` is what they show, for the JSON formats.
    pub(crate) fn rows(self, titles: &[&str], rows: &[Vec<String>], document: &Value) -> Result<(), Failure> {
        match (self.format, document) {
            (Format::Table, _) => {
                let mut table = new_table(titles.iter().copied());
                table.add_rows(rows.iter().cloned());
                print(table.trim_fmt().as_bytes())
            }
            (Format::Jsonl, Value::Array(items)) => {
                items.iter().try_for_each(|item| print(item.to_string().as_bytes()))
            }
            (Format::Jsonl, _) => print(document.to_string().as_bytes()),
            (Format::Json, _) => print(format!("{document:#}").as_bytes()),
        }
    }

    /// A document of the hub, as it came (one line for `jsonl`).
    pub(crate) fn raw(self, body: &Bytes) -> Result<(), Failure> {
        if self.format == Format::Jsonl {
            let text = std::str::from_utf8(body).map_err(Failure::failed)?;
            return print(one_line(text).as_bytes());
        }
        print(body)
    }
}

/// Line breaks between the tokens of a JSON text become spaces; inside its strings there are none.
fn one_line(text: &str) -> String {
    text.trim().replace(['\n', '\r'], " ")
}

fn new_table<'a>(titles: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let titles: Vec<&str> = titles.into_iter().collect();
    if !titles.is_empty() {
        table.set_header(titles);
    }
    table
}

/// A value as a table shows it.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join(", ")
        }
        Some(other) => other.to_string(),
    }
}

/// Data: one document or text, with a line end.
pub(crate) fn print(data: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let mut written = out.write_all(data);
    if !data.ends_with(b"\n") {
        written = written.and_then(|()| out.write_all(b"\n"));
    }
    match written.and_then(|()| out.flush()) {
        // Who reads has seen enough (`| head`): no failure of ours.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.map_err(Failure::failed),
    }
}

/// Something worth saying that is no data. A closed standard error is nobody to tell.
pub(crate) fn note(text: &str) {
    let mut err = std::io::stderr().lock();
    drop(err.write_all(text.as_bytes()).and_then(|()| err.write_all(b"\n")));
}

/// Progress may be drawn: somebody watches.
pub(crate) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

/// Why a command failed.
pub(crate) fn failure(failure: &Failure) {
    match failure {
        Failure::Told(_) => {}
        Failure::Client(error) => {
            note(&format!("error: {}", chain(error)));
            if let Some(code) = error.problem().map(|problem| &problem.code).filter(|code| !code.is_empty()) {
                note(&format!("see: message-hub explain {code}"));
            }
        }
        Failure::Node(error) => note(&error.block()),
        Failure::Usage(text) => note(&format!("error: {text}")),
        Failure::Failed(error) => note(&format!("error: {error:#}")),
    }
}

/// What the parser of the command line has to say: help and version are data, errors are not.
pub(crate) fn clap(error: &clap::Error) {
    drop(error.print());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_plain() {
        assert_eq!(cell(None), "");
        assert_eq!(cell(Some(&json!("a"))), "a");
        assert_eq!(cell(Some(&json!(["a", 1]))), "a, 1");
        assert_eq!(cell(Some(&json!({"a": 1}))), "{\"a\":1}");
        assert_eq!(cell(Some(&json!(false))), "false");
    }

    #[test]
    fn a_document_fits_a_line() {
        assert_eq!(one_line("{\n \"a\":1\r\n}\n"), "{  \"a\":1  }");
    }
}
