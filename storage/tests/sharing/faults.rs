//! Faults of Redis: what the nodes do meanwhile, and that they come back by themselves.

use std::time::Duration;

use hub_core::limit::Fate;
use hub_core::port::Clock;
use hub_storage::redis::{Endpoint, Fault, Options, Standing, probe};
use hub_storage::suite::ManualClock;
use hub_test_servers::{Kind, Server};

use crate::support::{Cluster, frozen, patient, shares, stands_alone, take, taken};

const LIMIT: Duration = Duration::from_secs(20);

async fn server() -> Server {
    Server::launch(Kind::Redis).await.unwrap()
}

async fn command(server: &Server, words: &[&str]) -> String {
    server.redis(words).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_redis_forgets_and_nothing_else() {
    let server = server().await;
    let mut cluster = Cluster::new(patient(&server.url()));
    let (one, other) = (cluster.sharing(2).await, cluster.sharing(2).await);
    assert_eq!(taken(&one, "a", frozen(4), 3).await + taken(&other, "a", frozen(4), 3).await, 4);
    for what in [&["FLUSHALL"][..], &["SCRIPT", "FLUSH"]] {
        assert_eq!(command(&server, &["EXISTS", "nothing"]).await, "0");
        command(&server, what).await;
        if what[0] == "FLUSHALL" {
            assert_eq!(command(&server, &["DBSIZE"]).await, "0", "it was emptied");
            assert_eq!(take(&other, "a", frozen(4), 4).await.fate, Fate::Taken, "all permits again");
        }
        assert_eq!(take(&one, "a", frozen(4), 1).await.fate, Fate::Refused, "counted on");
    }
    for node in [one, other] {
        assert_eq!((node.standing(), node.counts().falls), (Standing::Shared, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_put_under_a_key_is_no_debt() {
    let server = server().await;
    let options = patient(&server.url());
    let key = format!("{}:rate:caller:a", options.namespace);
    let mut cluster = Cluster::new(options);
    let node = cluster.sharing(1).await;
    for junk in ["nonsense", "nan", "-nan", "inf", "1e300", "-5", ""] {
        command(&server, &["SET", &key, junk]).await;
        let ruling = take(&node, "a", frozen(2_000), 1).await;
        assert_eq!((ruling.fate, ruling.left), (Fate::Taken, 1_999), "{junk:?}");
    }
    command(&server, &["DEL", &key]).await;
    command(&server, &["RPUSH", &key, "x"]).await;
    let ruling = take(&node, "a", frozen(2_000), 1).await;
    assert_eq!((ruling.fate, ruling.left), (Fate::Taken, 1_999), "a list");
    assert_eq!(node.counts().local, 0, "decided by redis");
    assert_eq!(node.standing(), Standing::Shared);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_dead_each_node_gives_its_share() {
    let server = server().await;
    let mut cluster = Cluster::new(patient(&server.url()));
    let nodes = [cluster.sharing(3).await, cluster.sharing(3).await, cluster.sharing(3).await];
    assert_eq!(taken(&nodes[0], "a", frozen(9), 12).await, 9, "the whole, while shared");
    server.kill().await.unwrap();
    assert!(!server.is_ready().await, "it was killed");
    let mut given = 0;
    for node in &nodes {
        given += taken(node, "b", frozen(9), 9).await;
    }
    assert_eq!(given, 9, "three nodes, three each");
    for node in &nodes {
        stands_alone(node).await;
        assert_eq!(node.counts().falls, 1, "said once");
    }
    server.start().await.unwrap();
    for node in &nodes {
        shares(node).await;
    }
    assert_eq!(taken(&nodes[1], "c", frozen(9), 12).await, 9, "the whole again");
}

/// A frozen Redis takes connections and says nothing: the worst kind of slow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_redis_holds_up_only_the_first_for_only_so_long() {
    let server = server().await;
    let mut options = patient(&server.url());
    options.timeout = Duration::from_millis(300);
    let mut cluster = Cluster::new(options);
    let node = cluster.sharing(1).await;
    server.pause().await.unwrap();
    let given = tokio::time::timeout(LIMIT, taken(&node, "a", frozen(50), 1_000)).await;
    assert_eq!(given.unwrap(), 50, "a thousand requests did not each wait");
    let reason = stands_alone(&node).await;
    assert!(reason.contains("did not answer"), "{reason}");
    server.unpause().await.unwrap();
    shares(&node).await;
    assert!(command(&server, &["DBSIZE"]).await.parse::<u32>().unwrap() > 0, "it answers again");
}

/// It answers, but too late: this node goes on without it, and takes it back when it is quick again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_sleeps_is_taken_back() {
    let server = Server::launch_with(Kind::Redis, &["--enable-debug-command", "yes"]).await.unwrap();
    let mut options = patient(&server.url());
    options.timeout = Duration::from_millis(300);
    let mut cluster = Cluster::new(options);
    let node = cluster.sharing(1).await;
    let asking = async {
        while node.counts().falls == 0 {
            take(&node, "a", frozen(1), 1).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stands_alone(&node).await
    };
    let (_, reason) = tokio::join!(server.redis(&["DEBUG", "SLEEP", "3"]), asking);
    assert!(reason.contains("did not answer"), "{reason}");
    shares(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_connection_is_made_again_without_a_word() {
    let server = server().await;
    let mut cluster = Cluster::new(patient(&server.url()));
    let node = cluster.sharing(1).await;
    for left in (0..5).rev() {
        let killed = command(&server, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        assert!(killed.parse::<u32>().unwrap() >= 1, "a connection was closed: {killed}");
        let ruling = take(&node, "a", frozen(5), 1).await;
        assert_eq!((ruling.fate, ruling.left), (Fate::Taken, left));
    }
    assert_eq!((node.counts().falls, node.counts().local), (0, 0));
}

/// Restarted again and again under load: every request is answered, and Redis decides again in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_under_load_fail_nobody() {
    let server = server().await;
    let mut cluster = Cluster::new(patient(&server.url()));
    let nodes = [cluster.sharing(2).await, cluster.sharing(2).await];
    let stop = tokio_util::sync::CancellationToken::new();
    let load = async {
        let mut asked = 0_u32;
        while !stop.is_cancelled() {
            for node in &nodes {
                take(node, "a", frozen(10), 1).await;
                asked += 1;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        asked
    };
    let faults = async {
        for _ in 0..2 {
            server.restart().await.unwrap();
            for node in &nodes {
                shares(node).await;
            }
        }
        stop.cancel();
    };
    let (asked, ()) = tokio::join!(load, faults);
    let falls: u64 = nodes.iter().map(|node| node.counts().falls).sum();
    assert!(asked > 10 && falls >= 2, "{asked} asked, {falls} falls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_is_told_with_its_cure() {
    let server = server().await;
    let url = server.url();
    let without = url.replace(":message_hub@", "");
    let wrong = url.replace(":message_hub@", ":wrong@");
    let limited = url.replace(":message_hub@", "reader:secret@");
    command(&server, &["ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@read"]).await;
    for (url, said) in [
        (&without, "password"),
        (&wrong, "password"),
        (&limited, "may not do"),
        (&url.replace("/0", "/99999"), "answered"),
        (&"redis://127.0.0.1:1/".to_owned(), "cannot be reached"),
        (&"redis://no-such-host.invalid/".to_owned(), "cannot be reached"),
    ] {
        let fault = found(url).await.unwrap_err().to_string();
        assert!(fault.contains(said), "{fault}");
        let mut cluster = Cluster::new(patient(url));
        let node = cluster.node(1);
        let reason = stands_alone(&node).await;
        assert!(reason.contains(said), "{reason}");
        assert!(!reason.contains("secret") && !reason.contains("wrong"), "{reason}");
        assert_eq!(taken(&node, "a", frozen(3), 5).await, 3, "it limits by itself");
    }
    for (make, said, unmake) in [
        (&["REPLICAOF", "127.0.0.1", "1"][..], "read-only", &["REPLICAOF", "NO", "ONE"][..]),
        (&["CONFIG", "SET", "maxmemory", "1"], "memory is full", &["CONFIG", "SET", "maxmemory", "0"]),
    ] {
        let mut cluster = Cluster::new(patient(&url));
        let node = cluster.sharing(1).await;
        command(&server, make).await;
        assert_eq!(taken(&node, "a", frozen(3), 5).await, 3, "it limits by itself");
        let reason = stands_alone(&node).await;
        assert!(reason.contains(said), "{reason}");
        command(&server, unmake).await;
        shares(&node).await;
    }
}

async fn found(url: &str) -> Result<hub_storage::redis::Report, Fault> {
    let options = Options::new(Endpoint::parse(url).unwrap(), "test:{probe}".to_owned());
    probe(&options, &ManualClock::default(), LIMIT).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_redis_is_looked_over() {
    let server = server().await;
    let report = found(&server.url()).await.unwrap();
    assert!(report.version.is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit())));
    assert_eq!(report.eviction.as_deref(), Some("noeviction"));
    assert!(report.clock > ManualClock::default().now().minus(Duration::from_secs(365 * 24 * 3600)));
    server.pause().await.unwrap();
    let options = Options::new(Endpoint::parse(&server.url()).unwrap(), "test:{probe}".to_owned());
    let slow = probe(&options, &ManualClock::default(), Duration::from_millis(300)).await;
    assert!(matches!(slow, Err(Fault::Slow(_))), "{slow:?}");
    server.unpause().await.unwrap();
}
