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

#[test]
fn help() -> anyhow::Result<()> {
    let mut text = String::new();
    for command in [
        &[][..],
        &["serve"],
        &["dev"],
        &["messages"],
        &["messages", "send"],
        &["messages", "get"],
        &["messages", "list"],
        &["messages", "cancel"],
        &["dead-letters"],
        &["services"],
        &["cluster"],
        &["config"],
        &["token"],
        &["explain"],
        &["completions"],
        &["bench"],
    ] {
        let arguments: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        text += &format!("$ message-hub {}\n{}\n", arguments.join(" "), message_hub(&arguments)?);
    }
    insta::assert_snapshot!(text);
    Ok(())
}
