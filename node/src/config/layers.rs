//! The layers: file, environment, flags, and files that hold one secret.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hub_core::error::code;
use toml::de::{DeTable, DeValue};

use super::Effective;
use super::error::{Problem, Source};
use super::schema::Key;
use super::sections::{KEYS, SECTIONS};
use super::value::Raw;

/// Settings by `section.key`; a later layer replaces an earlier one's.
pub(super) type Values = BTreeMap<String, Effective>;

/// Prefix of the environment variables that are settings: `MESSAGE_HUB_SECTION__KEY`.
const PREFIX: &str = "MESSAGE_HUB_";

/// Ends the name of a setting that names a file which holds the secret.
const FILE: &str = "_file";

/// Names that the guide promises and that this version cannot honour: refused, so that none is silently ignored.
const NOT_BUILT: [(&str, &str); 3] = [
    ("CIRCUIT_BREAKER_TIMEOUT", "circuit breakers"),
    ("CIRCUIT_BREAKER_THRESHOLD", "circuit breakers"),
    ("TRANSACTION_TIMEOUT", "transactions"),
];

/// The setting of this path; for a secret also by `section.key_file`.
fn known(path: &str) -> bool {
    KEYS.iter().any(|key| {
        let own = key.path();
        path == own || (key.secret && path.strip_suffix(FILE) == Some(own.as_str()))
    })
}

fn unknown(path: &str, source: Source) -> Problem {
    let (section, name) = path.split_once('.').unwrap_or((path, ""));
    let near = KEYS
        .iter()
        .map(Key::path)
        .filter(|known| distance(known, path) <= 3)
        .min_by_key(|known| distance(known, path));
    let detail = match near {
        Some(near) => format!("is not a setting; did you mean {near}?"),
        None if SECTIONS.iter().any(|(known, _)| *known == section) && !name.is_empty() => {
            let names: Vec<_> =
                KEYS.iter().filter(|key| key.section == section).map(|key| key.name).collect();
            format!("is not a setting; [{section}] has {}", names.join(", "))
        }
        None => "is not a setting; `message-hub config default` shows all".to_owned(),
    };
    Problem::new(path, source, detail)
}

/// Edits between two words, to guess what was meant.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.bytes().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        for (cell, r) in row.iter_mut().skip(1).zip(right.bytes()) {
            let best = (diagonal + usize::from(l != r)).min(before + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, best);
            before = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

fn put(values: &mut Values, problems: &mut Vec<Problem>, path: String, raw: Raw, source: Source) {
    if !known(&path) {
        problems.push(unknown(&path, source));
        return;
    }
    // A secret said by value in a later layer replaces one said by file in an earlier one, and the other way round.
    if let Some(by_value) = path.strip_suffix(FILE) {
        values.remove(by_value);
    }
    values.remove(&format!("{path}{FILE}"));
    values.insert(path, Effective { raw, source });
}

/// The configuration file. One that nobody named need not exist.
pub(super) fn file(path: &Path, named: bool, values: &mut Values, problems: &mut Vec<Problem>) {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => return,
        Err(error) => {
            let source = Source::Default;
            problems.push(Problem::new(
                path.display().to_string(),
                source,
                format!("cannot be read: {error}"),
            ));
            return;
        }
    };
    let at = |offset: usize| Source::File {
        path: path.to_owned(),
        line: text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1,
    };
    let (table, errors) = DeTable::parse_recoverable(&text);
    for error in errors {
        let source = at(error.span().map_or(0, |span| span.start));
        problems.push(Problem::new("syntax", source, error.message().to_owned()));
    }
    for (section, content) in table.get_ref() {
        let name = section.get_ref();
        let DeValue::Table(keys) = content.get_ref() else {
            problems.push(unknown(name, at(section.span().start)));
            continue;
        };
        if !SECTIONS.iter().any(|(known, _)| known == name) {
            problems.push(unknown(name, at(section.span().start)));
            continue;
        }
        for (key, value) in keys {
            let source = at(key.span().start);
            put(values, problems, format!("{name}.{}", key.get_ref()), raw(value.get_ref()), source);
        }
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Raw::Unfit("number that large"), Raw::Integer),
        DeValue::Boolean(value) => Raw::Bool(*value),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Float(_) => Raw::Unfit("number with a fraction"),
        DeValue::Datetime(_) => Raw::Unfit("date"),
        DeValue::Table(_) => Raw::Unfit("table"),
    }
}

/// The environment: `MESSAGE_HUB_SECTION__KEY` and the short names. A variable that is empty counts as not set.
pub(super) fn environment(env: &[(String, String)], values: &mut Values, problems: &mut Vec<Problem>) {
    for (name, text) in env.iter().filter(|(_, text)| !text.is_empty()) {
        let plain = name.strip_suffix("_FILE").unwrap_or(name);
        if let Some((_, what)) = NOT_BUILT.iter().find(|(known, _)| *known == plain) {
            let detail = format!("{what} is not supported by this version; unset it");
            let problem = Problem::new(name, Source::Env(name.clone()), detail);
            problems.push(problem.coded(code::NOT_BUILT));
            continue;
        }
        let long = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once("__"));
        let path = match long {
            Some((section, key)) => {
                format!("{}.{}", section.to_ascii_lowercase(), key.to_ascii_lowercase())
            }
            None => match short_name(name) {
                Some(path) => path,
                None => continue,
            },
        };
        if long.is_some() && short_set(env, &path) {
            let detail = "is set by its short name too; unset one of the two";
            problems.push(Problem::new(path, Source::Env(name.clone()), detail));
            continue;
        }
        put(values, problems, path, Raw::Text(text.clone()), Source::Env(name.clone()));
    }
    both_ways(env, problems);
}

/// The setting that a short name stands for; `NAME_FILE` for secrets.
fn short_name(name: &str) -> Option<String> {
    KEYS.iter().find_map(|key| {
        let short = key.env?;
        if name == short {
            return Some(key.path());
        }
        (key.secret && name.strip_suffix("_FILE") == Some(short)).then(|| key.path() + FILE)
    })
}

fn short_set(env: &[(String, String)], path: &str) -> bool {
    env.iter().any(|(name, text)| !text.is_empty() && short_name(name).as_deref() == Some(path))
}

/// A secret given by value and by file in the same layer: nobody can say which was meant.
fn both_ways(env: &[(String, String)], problems: &mut Vec<Problem>) {
    for short in KEYS.iter().filter(|key| key.secret).filter_map(|key| key.env) {
        let set = |wanted: &str| env.iter().any(|(name, text)| name == wanted && !text.is_empty());
        let by_file = format!("{short}_FILE");
        if set(short) && set(&by_file) {
            let detail = format!("is set as {by_file} too; unset one of the two");
            problems.push(Problem::new(short, Source::Env(short.to_owned()), detail));
        }
    }
}

/// Flags of the command line.
pub(super) fn flags(flags: &[(String, Raw, String)], values: &mut Values, problems: &mut Vec<Problem>) {
    for (path, raw, flag) in flags {
        put(values, problems, path.clone(), raw.clone(), Source::Flag(flag.clone()));
    }
}

/// Replaces every `…_file` by what the file holds, without the line end.
pub(super) fn secret_files(values: &mut Values, problems: &mut Vec<Problem>) {
    for key in KEYS.iter().filter(|key| key.secret) {
        let Some(found) = values.remove(&(key.path() + FILE)) else { continue };
        let path = PathBuf::from(found.raw.text());
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let raw = Raw::Text(text.trim_end_matches(['\n', '\r']).to_owned());
                let source = Source::SecretFile { path, by: Box::new(found.source) };
                values.insert(key.path(), Effective { raw, source });
            }
            Err(error) => {
                let detail = format!("{} cannot be read: {error}", path.display());
                problems.push(Problem::new(key.path() + FILE, found.source, detail));
            }
        }
    }
}
