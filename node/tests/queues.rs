//! `message-hub queues` against a real RabbitMQ.

use std::process::{Command, Output};

use anyhow::ensure;
use hub_test_servers::{Kind, Place};
use serde_json::{Value, json};

fn queues(url: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_message-hub"));
    command
        .arg("queues")
        .args(arguments)
        .args(["--output", "json"])
        .env_clear()
        // A broker stands in front of a database. It is not asked.
        .env("DATABASE_URL", "postgres://hub@127.0.0.1:1/hub")
        .env("RABBITMQ_URL", url)
        .env("QUEUE_PREFIX", "shop")
        .current_dir(std::env::temp_dir());
    Ok(command.output()?)
}

fn done(url: &str, arguments: &[&str]) -> anyhow::Result<Value> {
    let output = queues(url, arguments)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn refused(url: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = queues(url, arguments)?;
    ensure!(output.status.code() == Some(3), "{output:?}");
    Ok(String::from_utf8(output.stderr)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_are_made_shown_and_emptied() -> anyhow::Result<()> {
    let url = Place::on_shared(Kind::RabbitMq).await?.url().to_owned();
    assert_eq!(done(&url, &["list", "orders"])?[0]["messages"], Value::Null);
    let made = done(&url, &["setup", "orders", "dlq.orders"])?;
    let names: Vec<&str> = made
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|one| [&one["queue"], &one["dead_letter_queue"]])
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(names, ["shop.orders", "shop.dlq.orders", "shop.=dlq.orders", "shop.dlq.dlq.orders"]);
    assert_eq!(done(&url, &["list", "orders"])?[0]["messages"], json!(0));

    let said = refused(&url, &["purge", "orders"])?;
    assert!(said.contains("nothing was changed") && said.contains("--yes"), "{said}");
    let purged = done(&url, &["purge", "orders", "--yes"])?;
    assert_eq!(purged, json!({ "queue": "shop.orders", "messages": 0, "purged": true }));
    let said = refused(&url, &["purge", "another", "--dead-letters", "--yes"])?;
    assert!(said.contains("shop.dlq.another: there is no such queue"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_has_a_code_and_shows_no_password() -> anyhow::Result<()> {
    let url = Place::on_shared(Kind::RabbitMq).await?.url().to_owned();
    let wrong = url.replace("message_hub:message_hub@", "message_hub:no-such-word@");
    for (url, code) in [
        (wrong.as_str(), "HUB-2024"),
        (&format!("{url}_not_there"), "HUB-2024"),
        ("amqp://user:no-such-word@127.0.0.1:1/%2f", "HUB-2027"),
        ("http://user:no-such-word@127.0.0.1/", "HUB-2001"),
    ] {
        let output = queues(url, &["list", "orders"])?;
        let said = String::from_utf8(output.stderr)?;
        assert!(!output.status.success() && said.contains(code), "{code}: {said}");
        assert!(!said.contains("no-such-word"), "{said}");
        assert!(said.lines().count() < 12, "{said}");
    }
    Ok(())
}
