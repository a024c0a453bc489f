//! Arguments that many commands share.

use std::io::Read as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use secrecy::SecretString;
use url::Url;

use super::{Failure, Output};
use crate::client::{Client, Options};

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document, as the hub sent it.
    Json,
    /// One JSON document a line.
    Jsonl,
}

/// How data is printed.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OutputArgs {
    /// How data is printed.
    #[arg(
        long,
        short = 'o',
        value_enum,
        default_value_t,
        global = true,
        value_name = "FORMAT",
        help_heading = "Output"
    )]
    pub(crate) output: Format,
}

/// Whom to ask, and as whom.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ClientArgs {
    /// A node's address; repeat it to fail over to the next one.
    #[arg(
        long = "url",
        env = "MESSAGE_HUB_URL",
        hide_env_values = true,
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8200",
        global = true
    )]
    urls: Vec<Url>,
    /// Access token; `message-hub token` makes one.
    #[arg(long, env = "MESSAGE_HUB_TOKEN", hide_env_values = true, global = true)]
    token: Option<SecretString>,
    /// For the whole call, all nodes together.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration, global = true, value_name = "DURATION")]
    timeout: Duration,
    #[command(flatten)]
    output: OutputArgs,
}

impl ClientArgs {
    /// The client that these arguments describe.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let options = Options { urls: self.urls.clone(), token: self.token.clone(), timeout: self.timeout };
        Ok(options.build()?)
    }

    /// The printer that these arguments describe.
    pub(crate) fn output(&self) -> Output {
        Output::new(self.output.output)
    }

    /// The token, if there is one.
    pub(crate) fn token(&self) -> Option<&SecretString> {
        self.token.as_ref()
    }
}

/// An argument's text: itself, the file after `@`, or standard input for `-`.
pub(crate) fn text_or_file(argument: &str) -> Result<String, Failure> {
    if argument == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(Failure::failed)?;
        Ok(text)
    } else if let Some(path) = argument.strip_prefix('@') {
        std::fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{path}: {error}")))
    } else {
        Ok(argument.to_owned())
    }
}

/// Well-formed JSON as it came, without the space around it.
pub(crate) fn json_text(name: &str, argument: &str) -> Result<Box<serde_json::value::RawValue>, Failure> {
    let text = text_or_file(argument)?;
    serde_json::from_str(text.trim()).map_err(|error| {
        let hint = if text.trim_start().starts_with(['{', '[', '"']) {
            ""
        } else {
            " (a string needs quotes: '\"text\"')"
        };
        Failure::Usage(format!("{name} is not JSON: {error}{hint}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_kept_as_it_came() {
        assert_eq!(
            json_text("--content", " {\"b\": 1.50, \"a\":2}\n").unwrap().get(),
            "{\"b\": 1.50, \"a\":2}"
        );
        let error = json_text("--content", "hello").unwrap_err();
        assert_eq!(error.exit(), super::super::Exit::Usage);
        assert!(error.to_string().contains("needs quotes"));
    }

    #[test]
    fn files_are_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[1]").unwrap();
        assert_eq!(text_or_file(&format!("@{}", file.path().display())).unwrap(), "[1]");
        assert_eq!(text_or_file("@/nowhere/at/all").unwrap_err().exit(), super::super::Exit::Usage);
    }
}
