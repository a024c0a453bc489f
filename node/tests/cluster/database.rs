//! A database as the message store: no node leads the messages, all deliver, and none needs a leader of `control` for it.

use anyhow::{Context, ensure};
use hub_core::error::code;
use hub_node::doctor::{Finding, examine};
use hub_test_servers::{Kind, Place, Server};
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::{Http, Receiver, TestNode, configuration, refused, settings, three_with, until};

async fn place() -> anyhow::Result<String> {
    Ok(Place::on_shared(Kind::Postgres).await?.url().to_owned())
}

async fn stop(nodes: &mut [TestNode]) {
    for node in nodes {
        node.stop().await;
    }
}

/// What `/readyz?verbose` says.
async fn readiness(http: &Http, node: &TestNode) -> anyhow::Result<(StatusCode, String)> {
    let (status, body) = http.get(&format!("{}/readyz?verbose", node.url)).await?;
    let text =
        body.as_str().map_or_else(|| body["detail"].as_str().unwrap_or_default().to_owned(), str::to_owned);
    Ok((status, text))
}

fn message(target: &str) -> Value {
    json!({"sender_service": "tester", "target_service": target, "message_type": "test.made", "content": 1})
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_takes_and_delivers() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let url = place().await?;
    let mut nodes = three_with(folder.path(), &http, &[("postgres.url", &url)]).await?;
    http.register(&nodes[0].url, "target", &receiver).await?;
    let (_, cluster) = http.get(&format!("{}/api/v1/cluster", nodes[1].url)).await?;
    ensure!(cluster["groups"].get("messages").is_none(), "{cluster}");
    let (_, health) = http.get(&format!("{}/health", nodes[1].url)).await?;
    ensure!(health["checks"]["store"]["status"] == "ok", "{health}");
    ensure!(health["leaders"].get("messages").is_none(), "{health}");
    for (number, node) in nodes.iter().enumerate() {
        until("the service is known", || async {
            let (status, answer) =
                http.get(&format!("{}/api/v1/services/target?consistency=stale", node.url)).await?;
            ensure!(status == StatusCode::OK, "{status}: {answer}");
            Ok(())
        })
        .await?;
        let id = http.send(&node.url, "target", number).await?;
        // Any node shows what another one has taken; the one that took it has delivered it.
        for other in &nodes {
            let shown = http.delivered(&other.url, &id).await?;
            ensure!(shown["attempts"][0]["node"] == node.id(), "{shown}");
        }
    }
    let refused = json!({"group": "messages"});
    let (status, answer) =
        http.post(&format!("{}/api/v1/cluster/transfer-leader", nodes[0].url), refused).await?;
    ensure!(status == StatusCode::NOT_FOUND && answer["code"] == "HUB-1411", "{status}: {answer}");
    stop(&mut nodes).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_the_last_node_takes_and_delivers_also_after_a_restart() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let url = place().await?;
    let settings = [("postgres.url", url.as_str()), ("rest.request_timeout", "10s")];
    let mut nodes = three_with(folder.path(), &http, &settings).await?;
    http.register(&nodes[0].url, "target", &receiver).await?;
    // The node that stays need not have led; it must have heard that the registration is committed.
    let mut last = nodes.pop().context("three nodes")?;
    until("the service is known", || async {
        let (status, answer) =
            http.get(&format!("{}/api/v1/services/target?consistency=stale", last.url)).await?;
        ensure!(status == StatusCode::OK, "{status}: {answer}");
        Ok(())
    })
    .await?;
    for node in &mut nodes {
        node.fail().await;
    }
    for round in 0..2 {
        let id = http.send(&last.url, "target", round).await?;
        http.delivered(&last.url, &id).await?;
        until("degraded", || async {
            let (status, text) = readiness(&http, &last).await?;
            ensure!(status == StatusCode::OK && text.starts_with("degraded"), "{status}: {text}");
            ensure!(text.contains("[~] control") && text.contains("[+] store"), "{text}");
            Ok(())
        })
        .await?;
        // Nobody can say whether a target that is not known here is registered.
        let (status, answer) =
            http.post(&format!("{}/api/v1/messages", last.url), message("stranger")).await?;
        ensure!(
            status == StatusCode::SERVICE_UNAVAILABLE && answer["code"] == "HUB-1401",
            "{status}: {answer}"
        );
        // What is known is taken beside it.
        let batch = json!({"messages": [message("stranger"), message("target")]});
        let (_, answer) = http.post(&format!("{}/api/v1/messages/batch", last.url), batch).await?;
        let id = answer["results"][1]["id"].as_str().with_context(|| answer.to_string())?;
        http.delivered(&last.url, id).await?;
        if round == 0 {
            last.fail().await;
            last.restart().await?;
        }
    }
    last.fail().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_delivers_nothing() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let url = place().await?;
    let mut nodes = three_with(folder.path(), &http, &[("postgres.url", &url)]).await?;
    http.register(&nodes[0].url, "target", &receiver).await?;
    let (drained, other) = (&nodes[1], nodes[0].url.clone());
    let body = json!({"node_id": drained.id()});
    let (status, answer) = http.post(&format!("{other}/api/v1/cluster/drain"), body.clone()).await?;
    ensure!(status.is_success(), "{status}: {answer}");
    until("unready", || async {
        let (status, text) = readiness(&http, drained).await?;
        ensure!(status == StatusCode::SERVICE_UNAVAILABLE, "{status}: {text}");
        Ok(())
    })
    .await?;
    // Others deliver what it still takes.
    for number in 0..10 {
        let id = http.send(&drained.url, "target", number).await?;
        let shown = http.delivered(&drained.url, &id).await?;
        let attempts = shown["attempts"].as_array().cloned().unwrap_or_default();
        let delivered = attempts.iter().find(|attempt| attempt["outcome"] == "delivered");
        ensure!(delivered.is_some_and(|attempt| attempt["node"] != drained.id()), "{shown}");
    }
    let (status, answer) = http.post(&format!("{other}/api/v1/cluster/undrain"), body).await?;
    ensure!(status.is_success(), "{status}: {answer}");
    drained.ready(&http).await?;
    stop(&mut nodes).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_down_is_waited_for_and_missed() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let server = Server::launch(Kind::Postgres).await?;
    let url = server.url();
    server.stop().await?;
    let mut node = TestNode::start(&folder.path().join("1"), &[("postgres.url", &url)]).await?;
    let (status, text) = readiness(&http, &node).await?;
    ensure!(
        status == StatusCode::SERVICE_UNAVAILABLE && text.contains("waits for PostgreSQL"),
        "{status}: {text}"
    );
    http.register(&node.url, "target", &receiver).await?;
    let (status, answer) = http.post(&format!("{}/api/v1/messages", node.url), message("target")).await?;
    ensure!(status == StatusCode::SERVICE_UNAVAILABLE && answer["code"] == "HUB-1406", "{status}: {answer}");
    server.start().await?;
    node.ready(&http).await?;
    let id = http.send(&node.url, "target", 1).await?;
    http.delivered(&node.url, &id).await?;

    server.stop().await?;
    until("the store is missed", || async {
        let (status, text) = readiness(&http, &node).await?;
        ensure!(status == StatusCode::SERVICE_UNAVAILABLE, "{status}: {text}");
        ensure!(text.contains("[-] store") && !text.contains("message_hub:message_hub"), "{text}");
        Ok(())
    })
    .await?;
    server.start().await?;
    node.ready(&http).await?;
    let id = http.send(&node.url, "target", 2).await?;
    http.delivered(&node.url, &id).await?;
    node.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_used_refuses_the_start() -> anyhow::Result<()> {
    let (folder, url) = (tempfile::tempdir()?, place().await?);
    let with =
        async |name: &str, url: &str| refused(&folder.path().join(name), &[("postgres.url", url)]).await;
    let wrong = with("1", &url.replacen(":message_hub@", ":hunter2@", 1)).await?;
    ensure!(wrong.code == code::DATABASE_LOGIN && !wrong.block().contains("hunter2"), "{}", wrong.block());
    let missing = with("2", &format!("{url}_nowhere")).await?;
    ensure!(missing.code == code::DATABASE_LOGIN, "{}", missing.block());

    // One cluster, one store: neither the next start of a node nor a node that joins may have another one.
    let mut node = TestNode::start(&folder.path().join("3"), &[("postgres.url", &url)]).await?;
    let embedded = refused(&folder.path().join("4"), &[("raft.join", &node.raft)]).await?;
    ensure!(embedded.code == code::OTHER_STORE, "{}", embedded.block());
    node.stop().await;
    let embedded = refused(&folder.path().join("3"), &[]).await?;
    ensure!(embedded.code == code::OTHER_STORE, "{}", embedded.block());
    let mut node = TestNode::start(&folder.path().join("5"), &[]).await?;
    node.stop().await;
    let moved = with("5", &url).await?;
    ensure!(moved.code == code::OTHER_STORE, "{}", moved.block());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_carries_what_the_database_keeps() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let (url, broker) = (place().await?, Server::launch(Kind::RabbitMq).await?);
    let (amqp, prefix) = (broker.url(), "shop");
    let settings =
        [("postgres.url", url.as_str()), ("rabbitmq.url", &amqp), ("rabbitmq.queue_prefix", prefix)];
    let mut nodes = three_with(folder.path(), &http, &settings).await?;
    http.register(&nodes[0].url, "target", &receiver).await?;
    for (number, node) in nodes.iter().cycle().take(30).enumerate() {
        let id = http.send(&node.url, "target", number).await?;
        http.delivered(&node.url, &id).await?;
    }
    let queues = broker.exec(&["rabbitmqctl", "-q", "list_queues", "name", "type"]).await?;
    ensure!(queues.contains("shop.target\tquorum"), "{queues}");

    // Without the broker messages are taken; they are delivered when it is back.
    broker.kill().await?;
    until("the broker is missed", || async {
        let (status, text) = readiness(&http, &nodes[0]).await?;
        ensure!(status == StatusCode::OK && text.contains("[~] broker"), "{status}: {text}");
        Ok(())
    })
    .await?;
    let id = http.send(&nodes[0].url, "target", 31).await?;
    broker.start().await?;
    http.delivered(&nodes[1].url, &id).await?;
    stop(&mut nodes).await;

    let wrong = amqp.replacen(":message_hub@", ":hunter2@", 1);
    let settings = [("postgres.url", url.as_str()), ("rabbitmq.url", &wrong)];
    let login = refused(&folder.path().join("9"), &settings).await?;
    ensure!(login.code == code::BROKER_LOGIN && !login.block().contains("hunter2"), "{}", login.block());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_what_is_wrong() -> anyhow::Result<()> {
    let (folder, url) = (tempfile::tempdir()?, place().await?);
    let lines = async |url: &str, pairs: &[(&str, &str)]| {
        let all = [&[("postgres.url", url)], pairs].concat();
        let config = configuration(&folder.path().join("1"), &settings(&all))?;
        anyhow::Ok(examine(&config).await)
    };
    let fresh = lines(&url, &[]).await?;
    ensure!(fresh.iter().all(|line| !line.is_failing()), "{fresh:?}");
    let has = |lines: &[Finding], part: &str, text: &str| {
        lines.iter().any(|line| line.part == part && line.found.contains(text))
    };
    ensure!(has(&fresh, "postgres", "migrations are missing"), "{fresh:?}");
    ensure!(has(&fresh, "clock", "ms from PostgreSQL's"), "{fresh:?}");

    let mut node = TestNode::start(&folder.path().join("1"), &[("postgres.url", &url)]).await?;
    let running = lines(&url, &[("raft.join", &node.raft)]).await?;
    ensure!(has(&running, "postgres", "tables are up to date"), "{running:?}");
    ensure!(has(&running, "data folder", "runs with the data folder"), "{running:?}");
    ensure!(has(&running, "peer", "is a node of cluster"), "{running:?}");
    node.stop().await;

    let wrong = url.replacen(":message_hub@", ":hunter2@", 1);
    let broker = [("rabbitmq.url", "amqp://hub:hunter2@127.0.0.1:1/%2f"), ("raft.join", "127.0.0.1:1")];
    let ill = lines(&wrong, &broker).await?;
    for (part, code) in [("postgres", "HUB-2017"), ("rabbitmq", "HUB-2027")] {
        let found = ill.iter().find(|line| line.part == part && line.is_failing());
        let found = found.with_context(|| format!("{ill:?}"))?;
        ensure!(found.code.as_deref() == Some(code) && found.cure.is_some(), "{found:?}");
    }
    ensure!(has(&ill, "peer", "does not answer") && !format!("{ill:?}").contains("hunter2"), "{ill:?}");
    Ok(())
}
