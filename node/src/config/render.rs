//! The configuration as text: the commented default file, and the effective settings.

use std::fmt::Write;

use super::sections::{KEYS, SECTIONS};
use super::value::{Form, Raw};
use super::{Effective, Loaded, Source};

/// A file that says every setting, its default and its meaning. It changes nothing as it is.
#[must_use]
pub fn default_toml() -> String {
    let mut text = String::from(
        "# message-hub.toml: every setting with its default. Remove a `#` to change one.\n\
         # The environment goes before this file (MESSAGE_HUB_SECTION__KEY, and the names given here), flags before both.\n\
         # A secret can be given by file: NAME_FILE in the environment, name_file here.\n",
    );
    for (section, doc) in SECTIONS {
        text.push('\n');
        for line in *doc {
            let _ = writeln!(text, "#{line}");
        }
        let _ = writeln!(text, "[{section}]");
        for key in KEYS.iter().filter(|key| key.section == *section) {
            for line in key.doc {
                let _ = writeln!(text, "#{line}");
            }
            if let Some(env) = key.env {
                let _ = writeln!(
                    text,
                    "# Environment: {env}{}",
                    if key.secret { format!(" or {env}_FILE") } else { String::new() }
                );
            }
            let _ = writeln!(text, "#{} = {}", key.name, written(key.form, key.default));
        }
    }
    text
}

/// The settings in force, secrets left out, each that is not at its default with where it came from.
#[must_use]
pub fn show(loaded: &Loaded) -> String {
    let mut text = String::new();
    for (position, (section, _)) in SECTIONS.iter().enumerate() {
        let _ = writeln!(text, "{}[{section}]", if position > 0 { "\n" } else { "" });
        for key in KEYS.iter().filter(|key| key.section == *section) {
            let default = Effective { raw: Raw::Text(key.default.to_owned()), source: Source::Default };
            let found = loaded.origins.get(&key.path()).unwrap_or(&default);
            let value = found.raw.text();
            let shown = if key.secret && !value.is_empty() {
                "\"<redacted>\"".to_owned()
            } else {
                written(key.form, &value)
            };
            let _ = write!(text, "{} = {shown}", key.name);
            if found.source != Source::Default {
                let _ = write!(text, "  # {}", found.source);
            }
            text.push('\n');
        }
    }
    text
}

/// A value as it stands in the file.
fn written(form: Form, value: &str) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    match form {
        Form::Plain => value.to_owned(),
        Form::Text => quoted(value),
        Form::List => {
            let items: Vec<_> =
                value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(quoted).collect();
            format!("[{}]", items.join(", "))
        }
    }
}
