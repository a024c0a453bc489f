//! Rate limits over a real cluster that shares a Redis: counted together while it answers, divided while it does not,
//! and nobody fails for it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use hub_core::port::Clock;
use hub_node::clock::HubClock;
use hub_node::doctor::examine;
use hub_test_servers::{Kind, Server};
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::{Http, Receiver, TestNode, configuration, settings, until};
use crate::tls::{AUTHORITY, acceptor};

/// Permits that come back at one a second can be neglected beside so many that are saved.
const BURST: usize = 60;

async fn cluster(folder: &Path, http: &Http, settings: &[(&str, &str)]) -> anyhow::Result<Vec<TestNode>> {
    let first = TestNode::start(&folder.join("1"), settings).await?;
    let join = first.raft.clone();
    let mut nodes = vec![first];
    for name in ["2", "3"] {
        let joining: Vec<_> = settings.iter().copied().chain([("raft.join", join.as_str())]).collect();
        nodes.push(TestNode::start(&folder.join(name), &joining).await?);
    }
    for node in &nodes {
        node.ready(http).await?;
        crate::support::voters(http, &node.url, 3).await?;
    }
    Ok(nodes)
}

/// The check `cache` of a node, which is ready whatever it says.
async fn cache_check(http: &Http, node: &TestNode) -> anyhow::Result<Value> {
    let (status, answer) = http.get(&format!("{}/readyz", node.url)).await?;
    ensure!(status == StatusCode::OK, "{status}: {answer}");
    let (_, health) = http.get(&format!("{}/health", node.url)).await?;
    Ok(health["checks"]["cache"].clone())
}

/// Waits until every node says so of its cache.
async fn caches(http: &Http, nodes: &[TestNode], wanted: &str) -> anyhow::Result<()> {
    until("cache", || async {
        for node in nodes {
            let check = cache_check(http, node).await?;
            ensure!(check["status"] == wanted, "{check}");
        }
        Ok(())
    })
    .await
}

/// One message; whether it was taken. Anything but 202 and 429 is a failure.
async fn send(http: &Http, node: &TestNode, target: &str) -> anyhow::Result<bool> {
    let body = json!({
        "sender_service": "tester", "target_service": target, "message_type": "test.made", "content": 1,
    });
    let (status, answer) = http.post(&format!("{}/api/v1/messages", node.url), body).await?;
    if status == StatusCode::TOO_MANY_REQUESTS {
        ensure!(answer["code"] == "HUB-1210", "{answer}");
        return Ok(false);
    }
    ensure!(status == StatusCode::ACCEPTED, "{status}: {answer}");
    Ok(true)
}

/// How many of `tries` messages the nodes take in turn, and how long that took.
async fn taken(http: &Http, nodes: &[TestNode], target: &str, tries: usize) -> anyhow::Result<(usize, u64)> {
    let clock = HubClock::default();
    let (mut taken, started) = (0, clock.instant());
    for node in nodes.iter().cycle().take(tries) {
        taken += usize::from(send(http, node, target).await?);
    }
    Ok((taken, clock.instant().duration_since(started).as_secs() + 1))
}

/// So many, and those that came back meanwhile.
fn about(wanted: usize, (found, seconds): (usize, u64), what: &str) -> anyhow::Result<()> {
    let most = wanted + usize::try_from(seconds)? + 3;
    ensure!((wanted..=most).contains(&found), "{what}: {found} taken in {seconds} s, expected {wanted}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_share_a_limit_and_divide_it_while_redis_is_away() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let server = Server::launch(Kind::Redis).await?;
    let (url, burst) = (server.url(), BURST.to_string());
    let settings = [
        ("redis.url", url.as_str()),
        // The machine may be busy with other tests.
        ("redis.timeout", "2s"),
        ("limits.target_per_second", "1"),
        ("limits.target_burst", &burst),
    ];
    let mut nodes = cluster(folder.path(), &http, &settings).await?;
    for target in ["shared", "divided", "emptied", "again"] {
        http.register(&nodes[0].url, target, &receiver).await?;
    }
    caches(&http, &nodes, "ok").await?;
    about(BURST, taken(&http, &nodes, "shared", 2 * BURST).await?, "three nodes together")?;

    about(BURST, taken(&http, &nodes[..1], "emptied", 2 * BURST).await?, "one node alone may have all")?;
    server.redis(&["FLUSHALL"]).await?;
    about(BURST, taken(&http, &nodes, "emptied", 2 * BURST).await?, "emptied: from the start")?;
    caches(&http, &nodes, "ok").await?;

    server.kill().await?;
    ensure!(!server.is_ready().await, "it was killed");
    caches(&http, &nodes, "degraded").await?;
    about(BURST / 3, taken(&http, &nodes[..1], "divided", BURST).await?, "a third for each")?;
    about(BURST / 3, taken(&http, &nodes[1..2], "divided", BURST).await?, "a third for each")?;
    server.start().await?;
    caches(&http, &nodes, "ok").await?;
    about(BURST, taken(&http, &nodes[..2], "again", 2 * BURST).await?, "together again")?;
    for node in &mut nodes {
        node.stop().await;
    }
    Ok(())
}

/// Killed, frozen, restarted, emptied under load: every message is taken and delivered.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_for_redis() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let server = Server::launch(Kind::Redis).await?;
    let url = server.url();
    let settings = [
        ("redis.url", url.as_str()),
        ("limits.caller_per_second", "1000000"),
        ("limits.target_per_second", "1000000"),
    ];
    let mut nodes = cluster(folder.path(), &http, &settings).await?;
    http.register(&nodes[0].url, "target", &receiver).await?;
    caches(&http, &nodes, "ok").await?;
    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = |node: usize| {
        let (http, node, stop, sent) = (&http, &nodes[node], &stop, &sent);
        async move {
            while !stop.load(Ordering::SeqCst) {
                ensure!(send(http, node, "target").await?, "refused at {}", node.url);
                sent.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        }
    };
    let faults = async {
        let faults = async {
            server.redis(&["FLUSHALL"]).await?;
            server.kill().await?;
            caches(&http, &nodes, "degraded").await?;
            server.start().await?;
            caches(&http, &nodes, "ok").await?;
            server.pause().await?;
            caches(&http, &nodes, "degraded").await?;
            server.unpause().await?;
            caches(&http, &nodes, "ok").await?;
            server.restart().await?;
            caches(&http, &nodes, "ok").await
        };
        let done = faults.await;
        stop.store(true, Ordering::SeqCst);
        done
    };
    let (first, second, third, faults) = tokio::join!(load(0), load(1), load(2), faults);
    first.and(second).and(third).context("a request failed")?;
    faults?;
    let sent = sent.load(Ordering::SeqCst);
    until("delivered", || async {
        let delivered = receiver.seen().len();
        ensure!(delivered >= sent, "{delivered} of {sent}");
        Ok(())
    })
    .await?;
    let (_, metrics) = http.get(&format!("{}/metrics", nodes[0].url)).await?;
    let metrics = metrics.as_str().context("metrics are text")?;
    for series in ["hub_cache_up 1", "hub_cache_failures_total", "by=\"redis\"", "by=\"node\""] {
        ensure!(metrics.contains(series), "{series} is missing");
    }
    for node in &mut nodes {
        node.stop().await;
    }
    Ok(())
}

/// A message that has come to its end is shown by every node out of Redis, and the same as ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_ended_message_is_shown_alike_with_and_without_redis() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let server = Server::launch(Kind::Redis).await?;
    let url = server.url();
    let settings = [("redis.url", url.as_str()), ("redis.timeout", "2s")];
    let mut nodes = cluster(folder.path(), &http, &settings).await?;
    http.register(&nodes[0].url, "target", &receiver).await?;
    caches(&http, &nodes, "ok").await?;
    let id = http.send(&nodes[0].url, "target", 1).await?;
    let shown = http.delivered(&nodes[0].url, &id).await?;
    let keys = server.redis(&["KEYS", "message-hub:*:ended:*"]).await?;
    ensure!(keys.contains(&id), "not kept: {keys}");
    let again = async |node: &TestNode| http.get(&format!("{}/api/v1/messages/{id}", node.url)).await;
    for node in &nodes {
        ensure!(again(node).await? == (StatusCode::OK, shown.clone()), "another answer");
    }
    let (_, metrics) = http.get(&format!("{}/metrics", nodes[1].url)).await?;
    ensure!(
        metrics.as_str().is_some_and(|text| text.contains("hub_cache_reads_total{result=\"hit\"} 1")),
        "no hit"
    );
    server.kill().await?;
    for node in &nodes {
        ensure!(again(node).await? == (StatusCode::OK, shown.clone()), "another answer without Redis");
    }
    for node in &mut nodes {
        node.stop().await;
    }
    Ok(())
}

/// A Redis that wants a password, or is not there: the node starts, says so, and limits by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_refuses_or_is_missing_stops_nobody() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let server = Server::launch(Kind::Redis).await?;
    let without = format!("redis://127.0.0.1:{}", server.port());
    for (name, url, said) in
        [("1", without.as_str(), "password"), ("2", "redis://127.0.0.1:1", "cannot be reached")]
    {
        let settings = [("redis.url", url), ("limits.caller_per_second", "1"), ("limits.caller_burst", "9")];
        let mut node = TestNode::start(&folder.path().join(name), &settings).await?;
        node.ready(&http).await?;
        http.register(&node.url, "target", &receiver).await?;
        until("said", || async {
            let check = cache_check(&http, &node).await?;
            let detail = check["detail"].as_str().unwrap_or_default();
            ensure!(check["status"] == "degraded" && detail.contains(said), "{check}");
            Ok(())
        })
        .await?;
        about(9, taken(&http, std::slice::from_ref(&node), "target", 20).await?, "limited by itself")?;
        node.stop().await;
    }
    Ok(())
}

/// Speaks TLS in front of a Redis, with a certificate that a private authority signed.
async fn tls_before(port: u16) -> anyhow::Result<(u16, JoinSet<()>)> {
    let acceptor = acceptor(&[])?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (own, mut running) = (listener.local_addr()?.port(), JoinSet::new());
    running.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            open.spawn(async move {
                let Ok(mut outer) = acceptor.accept(stream).await else { return };
                let Ok(mut inner) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                let _ended = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
            });
        }
    });
    Ok((own, running))
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_reached_by_tls_and_its_authority_is_checked() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let server = Server::launch(Kind::Redis).await?;
    let (port, _proxy) = tls_before(server.port()).await?;
    // The password of `server.url()`, another database.
    let url = server.url().replace("redis://", "rediss://").replace("127.0.0.1", "localhost");
    let url = url.replace(&format!(":{}/0", server.port()), &format!(":{port}/3"));
    let trusting = [
        ("redis.url", url.as_str()),
        ("redis.ca_file", AUTHORITY),
        ("redis.timeout", "2s"),
        ("limits.caller_per_second", "1"),
        ("limits.caller_burst", "900"),
    ];
    let mut node = TestNode::start(&folder.path().join("1"), &trusting).await?;
    node.ready(&http).await?;
    caches(&http, std::slice::from_ref(&node), "ok").await?;
    http.register(&node.url, "target", &receiver).await?;
    ensure!(send(&http, &node, "target").await?, "refused");
    node.stop().await;
    let clients = server.redis(&["INFO", "keyspace"]).await?;
    ensure!(clients.contains("db3:"), "another database was used: {clients}");

    let mut node = TestNode::start(&folder.path().join("2"), &trusting[..1]).await?;
    node.ready(&http).await?;
    until("refused", || async {
        let check = cache_check(&http, &node).await?;
        let detail = check["detail"].as_str().unwrap_or_default();
        ensure!(check["status"] == "degraded" && detail.contains("certificate"), "{check}");
        Ok(())
    })
    .await?;
    node.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_how_redis_is_and_what_it_lacks() -> anyhow::Result<()> {
    let (folder, server) = (tempfile::tempdir()?, Server::launch(Kind::Redis).await?);
    let found = async |url: &str| {
        let config = configuration(&folder.path().join("1"), &settings(&[("redis.url", url)]))?;
        let found = examine(&config).await.into_iter().find(|line| line.part == "redis");
        found.context("nothing is said of redis")
    };
    let sound = found(&server.url()).await?;
    ensure!(sound.status == "ok" && sound.found.contains("Redis 8"), "{sound:?}");
    let wrong = server.url().replace(":message_hub@", ":hunter2@");
    for (url, said) in [(wrong.as_str(), "password"), ("redis://127.0.0.1:1", "cannot be reached")] {
        let ill = found(url).await?;
        ensure!(ill.status == "degraded" && ill.found.contains(said) && ill.cure.is_some(), "{ill:?}");
        ensure!(!format!("{ill:?}").contains("hunter2"), "{ill:?}");
    }
    Ok(())
}
