//! `explain`: cause and cure of a coded error.

use hub_core::error::{CATALOGUE, Explanation};
use serde_json::json;

use super::args::OutputArgs;
use super::{Failure, Output, output};

/// Explain an error code.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// `HUB-1202`, or just `1202`; every code is listed when none is given.
    #[arg(value_name = "CODE")]
    codes: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let output = Output::new(args.output.output);
    if args.codes.is_empty() {
        return list(output);
    }
    let found = args.codes.iter().map(|code| find(code)).collect::<Result<Vec<_>, _>>()?;
    if output.is_table() {
        let texts: Vec<String> = found.into_iter().map(text).collect();
        return output::print(texts.join("\n\n").as_bytes());
    }
    output.rows(&[], &[], &found.into_iter().map(document).collect())
}

fn list(output: Output) -> Result<(), Failure> {
    let rows: Vec<Vec<String>> = CATALOGUE
        .iter()
        .map(|entry| vec![entry.code.to_string(), status(entry), entry.title.to_owned()])
        .collect();
    output.rows(&["CODE", "HTTP", "MEANING"], &rows, &CATALOGUE.iter().map(document).collect())
}

fn find(text: &str) -> Result<&'static Explanation, Failure> {
    let digits = text.trim().to_ascii_uppercase();
    let digits = digits.strip_prefix("HUB-").unwrap_or(&digits);
    digits
        .parse::<u16>()
        .ok()
        .and_then(|number| CATALOGUE.iter().find(|entry| entry.code.0 == number))
        .ok_or_else(|| Failure::Usage(format!("{text} is no code; `message-hub explain` lists all")))
}

fn status(entry: &Explanation) -> String {
    if entry.status == 0 { String::new() } else { entry.status.to_string() }
}

fn text(entry: &Explanation) -> String {
    let answered = if entry.status == 0 { String::new() } else { format!(" (HTTP {})", entry.status) };
    format!("{}: {}{answered}\n  Cause: {}\n  Cure:  {}", entry.code, entry.title, entry.cause, entry.cure)
}

fn document(entry: &Explanation) -> serde_json::Value {
    json!({
        "code": entry.code.to_string(),
        "title": entry.title,
        "status": (entry.status != 0).then_some(entry.status),
        "cause": entry.cause,
        "cure": entry.cure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_however_written() {
        for text in ["HUB-1202", "hub-1202", "1202", " 1202 "] {
            assert_eq!(find(text).unwrap().code.0, 1202);
        }
        for text in ["HUB-9999", "x", "", "99999999"] {
            assert_eq!(find(text).unwrap_err().exit(), super::super::Exit::Usage);
        }
    }

    #[test]
    fn every_code_is_explained() {
        for entry in CATALOGUE {
            let text = text(entry);
            assert!(text.contains("Cause: ") && text.contains("Cure:"), "{text}");
        }
    }
}
