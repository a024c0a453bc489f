//! Snapshots of what people and programs see: a change of any of them is a change that somebody must have meant.

use std::process::Command;

use hub_core::error::CATALOGUE;

fn message_hub(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_message-hub"))
        .args(arguments)
        .env_clear()
        .env("COLUMNS", "100")
        .current_dir(std::env::temp_dir())
        .output()?;
    anyhow::ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn openapi_document() {
    insta::assert_snapshot!(hub_api::document("0.0.0"));
}

#[test]
fn default_configuration() -> anyhow::Result<()> {
    insta::assert_snapshot!(message_hub(&["config", "default"])?);
    Ok(())
}

#[test]
fn error_catalogue() {
    let lines = CATALOGUE.iter().map(|one| {
        format!("{} {} {}\n  cause: {}\n  cure: {}\n", one.code, one.status, one.title, one.cause, one.cure)
    });
    insta::assert_snapshot!(lines.collect::<String>());
}

/// The help of a command and of everything under it.
fn help_of(command: &mut Vec<String>, text: &mut String) -> anyhow::Result<usize> {
    let arguments: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
    let help = message_hub(&arguments)?;
    *text += &format!("$ message-hub {}\n{help}\n", arguments.join(" "));
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("    "));
    let names: Vec<String> =
        names.filter_map(|line| line.split_whitespace().next()).map(ToOwned::to_owned).collect();
    let mut count = 1;
    for name in names.into_iter().filter(|name| name != "help") {
        command.push(name);
        count += help_of(command, text)?;
        command.pop();
    }
    Ok(count)
}

#[test]
fn help() -> anyhow::Result<()> {
    let mut text = String::new();
    let count = help_of(&mut Vec::new(), &mut text)?;
    assert!(count > 30, "only {count} commands were found");
    insta::assert_snapshot!(text);
    Ok(())
}
