//! A node moves from its own store into a database, and goes on there with every message it had: once, whatever died in between.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use anyhow::{Context, ensure};
use hub_core::error::code;
use hub_core::port::Clock;
use hub_node::clock::HubClock;
use hub_node::identity::DataFolder;
use hub_node::store_copy::{self, Options};
use hub_node::wiring::Node;
use hub_storage::copy::Origin;
use hub_storage::postgres::{Import, prepare};
use hub_storage::sqlite::Walk;
use hub_test_servers::{Kind, Place, Server};
use hyper::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    DEADLINE, Http, Receiver, TestNode, configuration, refused, settings, three, until, voters,
};

async fn place() -> anyhow::Result<String> {
    Ok(Place::on_shared(Kind::Postgres).await?.url().to_owned())
}

/// The command itself.
fn command(folder: &Path, url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_message-hub"));
    command
        .args(["store", "copy", "--from", "embedded", "--to", "postgres", "--data"])
        .arg(folder)
        .env_clear()
        .env("DATABASE_URL", url)
        .current_dir(std::env::temp_dir());
    command
}

fn store_copy(folder: &Path, url: &str, more: &[&str]) -> anyhow::Result<Output> {
    Ok(command(folder, url).args(more).output()?)
}

/// A start, in a process of its own, that is expected to end.
fn serve(folder: &Path, url: &str) -> anyhow::Result<Output> {
    let output = Command::new(env!("CARGO_BIN_EXE_message-hub"))
        .args(["serve", "--no-auth", "--rest", "127.0.0.1:0", "--raft", "127.0.0.1:0", "--data"])
        .arg(folder)
        .env_clear()
        .env("DATABASE_URL", url)
        .env("CLUSTER_KEY", "a cluster key that is long enough for a test")
        .current_dir(std::env::temp_dir())
        .output()?;
    Ok(output)
}

fn copied(folder: &Path, url: &str, more: &[&str]) -> anyhow::Result<Value> {
    let output = store_copy(folder, url, &[more, &["--output", "json"]].concat())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn not_copied(folder: &Path, url: &str, exit: i32, code: &str) -> anyhow::Result<()> {
    let output = store_copy(folder, url, &[])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(exit) && said.contains(code), "{}: {said}", output.status);
    Ok(())
}

/// Sends a message that nobody registered for, or later than now.
async fn post(http: &Http, url: &str, target: &str, more: Value) -> anyhow::Result<String> {
    let mut body =
        json!({"sender_service": "tester", "target_service": target, "message_type": "t", "content": 1});
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(more.clone());
    }
    let (status, answer) = http.post(&format!("{url}/api/v1/messages?allow_unregistered=true"), body).await?;
    ensure!(status == StatusCode::ACCEPTED, "{status}: {answer}");
    Ok(answer["id"].as_str().context("no id")?.to_owned())
}

async fn status(http: &Http, url: &str, id: &str) -> anyhow::Result<String> {
    let (_, message) = http.get(&format!("{url}/api/v1/messages/{id}")).await?;
    Ok(message["status"].as_str().context("no status")?.to_owned())
}

/// How often each of these came.
fn times(receiver: &Receiver, id: &str) -> usize {
    receiver.seen().iter().filter(|message| message["id"] == *id).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_goes_on_in_the_database_with_every_message() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let (data, url) = (folder.path().join("1"), place().await?);
    let mut node = TestNode::start(&data, &[]).await?;
    node.ready(&http).await?;
    http.register(&node.url, "target", &receiver).await?;
    let mut done = Vec::new();
    for number in 0..5 {
        done.push(http.carry(&node.url, "target", number).await?);
    }
    let gone = json!({"name": "gone", "url": receiver.url, "delivery": {"path": "/gone"}});
    let (code, answer) = http.post(&format!("{}/api/v1/services/register", node.url), gone).await?;
    ensure!(code.is_success(), "{answer}");
    let dead = post(&http, &node.url, "gone", json!({})).await?;
    until("dead", || async {
        ensure!(status(&http, &node.url, &dead).await? == "dead_letter");
        Ok(())
    })
    .await?;
    let mut waiting = Vec::new();
    for _ in 0..7 {
        waiting.push(post(&http, &node.url, "later", json!({})).await?);
    }
    let scheduled = post(&http, &node.url, "target", json!({"delay_seconds": 3_600})).await?;

    not_copied(&data, &url, 3, "HUB-2005")?;
    node.stop().await;
    let moved = refused(&data, &[("postgres.url", &url)]).await?;
    ensure!(moved.code == code::OTHER_STORE && moved.block().contains("store copy"), "{}", moved.block());
    let plan = copied(&data, &url, &["--dry-run"])?;
    ensure!(plan["messages"] == 14 && plan["open"] == 8 && plan["finished"] == false, "{plan}");
    let report = copied(&data, &url, &[])?;
    ensure!(report["messages"] == 14 && report["dead_letters"] == 1, "{report}");
    ensure!(report["open"] == 8 && report["copied_before"] == false, "{report}");
    ensure!(!data.join("messages").exists(), "the old data is set aside");
    ensure!(copied(&data, &url, &[])?["copied_before"] == true);
    not_copied(&data, &place().await?, 3, "HUB-2028")?;
    let embedded = refused(&data, &[]).await?;
    ensure!(embedded.code == code::OTHER_STORE, "{}", embedded.block());
    let elsewhere = serve(&data, &place().await?)?;
    let said = String::from_utf8_lossy(&elsewhere.stderr);
    ensure!(elsewhere.status.code() == Some(3) && said.contains("HUB-2022"), "{}: {said}", elsewhere.status);

    let mut node = TestNode::start(&data, &[("postgres.url", &url)]).await?;
    node.ready(&http).await?;
    http.register(&node.url, "later", &receiver).await?;
    for id in &waiting {
        http.delivered(&node.url, id).await?;
    }
    for id in done.iter().chain(&waiting) {
        ensure!(times(&receiver, id) == 1, "{id} came {} times", times(&receiver, id));
    }
    ensure!(status(&http, &node.url, &dead).await? == "dead_letter");
    ensure!(status(&http, &node.url, &scheduled).await? == "pending");
    http.carry(&node.url, "target", 99).await?;
    node.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_moves_through_the_one_node_that_is_left() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let url = place().await?;
    let mut nodes = three(folder.path(), &http).await?;
    http.register(&nodes[0].url, "target", &receiver).await?;
    let done = http.carry(&nodes[2].url, "target", 1).await?;
    let waiting = post(&http, &nodes[1].url, "later", json!({})).await?;
    for node in &mut nodes {
        node.stop().await;
    }
    // Each may lack what the two others have.
    not_copied(&nodes[0].folder, &url, 3, "HUB-2028")?;
    for node in &mut nodes {
        node.restart().await?;
    }
    nodes[0].ready(&http).await?;
    for left in [2, 1] {
        let gone = &nodes[left];
        let path = format!("{}/api/v1/cluster/members/{}", nodes[0].url, gone.id());
        until("removed", || async {
            let (status, answer) = http.call(Method::DELETE, &path, None).await?;
            ensure!(status.is_success(), "{status}: {answer}");
            Ok(())
        })
        .await?;
        voters(&http, &nodes[0].url, left).await?;
    }
    for node in &mut nodes {
        node.stop().await;
    }
    not_copied(&nodes[1].folder, &url, 3, "HUB-2028")?;
    let report = copied(&nodes[0].folder, &url, &[])?;
    ensure!(report["messages"] == 2 && report["open"] == 1, "{report}");

    let mut first = TestNode::start(&nodes[0].folder, &[("postgres.url", &url)]).await?;
    first.ready(&http).await?;
    let joining = settings(&[("postgres.url", &url), ("raft.join", &first.raft)]);
    let second = Node::start(configuration(&nodes[1].folder, &joining)?, true).await?;
    http.register(&first.url, "later", &receiver).await?;
    http.delivered(&second.endpoints().rest_url, &waiting).await?;
    ensure!(times(&receiver, &waiting) == 1 && times(&receiver, &done) == 1);
    second.stop(true).await;
    first.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_it_dies_neither_side_starts_until_it_is_done() -> anyhow::Result<()> {
    let (folder, http) = (tempfile::tempdir()?, Http::new());
    let (data, url) = (folder.path().join("1"), place().await?);
    let mut node = TestNode::start(&data, &[]).await?;
    node.ready(&http).await?;
    post(&http, &node.url, "later", json!({})).await?;
    node.stop().await;
    let clock = Arc::new(HubClock::default());
    let secret = SecretString::from(url.clone());
    let identity = DataFolder::open(&data)?.identity().cloned().context("an identity")?;
    let mut walk = Walk::open(&data.join("messages/db")).await?;
    let origin =
        Origin { cluster: identity.cluster.unwrap_or_default(), node: 1, entry: walk.applied().index };
    let with = [("postgres.url", url.as_str())];

    // It dies when all is copied: the folder is still the one that counts.
    let (mut import, _) = Import::begin(&secret, origin, clock.clone(), false).await?;
    hub_storage::copy::run(&mut walk, &mut import, |_| {}).await?;
    walk.close().await?;
    drop(import);
    let hub = refused(&folder.path().join("2"), &with).await?;
    ensure!(hub.code == code::COPY_UNFINISHED, "{}", hub.block());

    // It dies when the folder has let go of its messages, and the database has not been told.
    DataFolder::open(&data)?.save(identity.moved(origin.entry))?;
    let moved = serve(&data, &url)?;
    let said = String::from_utf8_lossy(&moved.stderr);
    ensure!(moved.status.code() == Some(3) && said.contains("HUB-2030"), "{}: {said}", moved.status);
    let embedded = refused(&data, &[]).await?;
    ensure!(embedded.code == code::OTHER_STORE, "{}", embedded.block());
    let elsewhere = serve(&data, &place().await?)?;
    let said = String::from_utf8_lossy(&elsewhere.stderr);
    ensure!(elsewhere.status.code() == Some(3) && said.contains("HUB-2022"), "{}: {said}", elsewhere.status);
    not_copied(&data, &place().await?, 3, "HUB-2028")?;

    // It dies before the old data is set aside.
    let (import, _) = Import::begin(&secret, origin, clock.clone(), false).await?;
    import.finish().await?;
    let options = Options { data: data.clone(), url: secret, start_over: false };
    let report = store_copy::run(&options, clock.clone(), clock.wall(), |_, _| {}).await?;
    ensure!(report.before && report.aside.is_some_and(|aside| aside.join("db").exists()));
    let mut node = TestNode::start(&data, &with).await?;
    node.ready(&http).await?;
    node.stop().await;
    Ok(())
}

/// A copy that stands still between the messages and their keys.
async fn copy_held(server: &Arc<Server>, folder: &Path, held: &mut JoinSet<()>) -> anyhow::Result<Child> {
    let (url, locks) = (server.url(), Arc::clone(server));
    held.spawn(async move {
        // Ended from outside.
        let _ended = locks.sql("BEGIN; LOCK TABLE idempotency IN SHARE MODE; SELECT pg_sleep(600)").await;
    });
    until("locked", || async {
        let held = "SELECT count(*) FROM pg_locks WHERE relation = 'idempotency'::regclass AND granted \
                    AND mode = 'ShareLock'";
        ensure!(server.sql(held).await? == "1");
        Ok(())
    })
    .await?;
    let child = command(folder, &url).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    until("all messages written", || async {
        let waits = "SELECT count(*) FROM pg_locks WHERE relation = 'idempotency'::regclass AND NOT granted";
        ensure!(
            server.sql("SELECT messages FROM store_copy").await? == "50" && server.sql(waits).await? == "1"
        );
        Ok(())
    })
    .await?;
    Ok(child)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_or_cut_off_it_goes_on_where_it_was() -> anyhow::Result<()> {
    let (folder, http) = (tempfile::tempdir()?, Http::new());
    let (data, server) = (folder.path().join("1"), Arc::new(Server::launch(Kind::Postgres).await?));
    let mut node = TestNode::start(&data, &[]).await?;
    node.ready(&http).await?;
    let message = |number: usize| {
        json!({"sender_service": "tester", "target_service": "later", "message_type": "t", "content": number,
            "idempotency_key": format!("key {number}")})
    };
    let batch = json!({ "messages": (0..50).map(message).collect::<Vec<_>>() });
    let path = "api/v1/messages/batch?allow_unregistered=true";
    let (status, answer) = http.post(&format!("{}/{path}", node.url), batch).await?;
    ensure!(status == StatusCode::OK && answer["results"][49]["status"] == "pending", "{status}: {answer}");
    node.stop().await;
    let soon = HubClock::default().instant() + DEADLINE;
    prepare(&SecretString::from(server.url()), soon).await?;

    let mut held = JoinSet::new();
    let mut killed = copy_held(&server, &data, &mut held).await?;
    killed.kill()?;
    killed.wait()?;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'";
    server.sql(end).await?;
    held.join_next().await.context("the lock")??;

    let cut = copy_held(&server, &data, &mut held).await?;
    server.kill().await?;
    let cut = tokio::task::spawn_blocking(|| cut.wait_with_output()).await??;
    let said = String::from_utf8_lossy(&cut.stderr);
    ensure!(cut.status.code() == Some(1) && said.contains("HUB-2031"), "{}: {said}", cut.status);
    server.start().await?;
    let report = copied(&data, &server.url(), &[])?;
    ensure!(report["messages"] == 50 && report["idempotency_keys"] == 50, "{report}");
    let there = "SELECT count(*) || ' ' || (SELECT count(*) FROM deliveries) || ' ' || (SELECT count(*) FROM idempotency) \
                 FROM messages";
    ensure!(server.sql(there).await? == "50 50 50");
    Ok(())
}
