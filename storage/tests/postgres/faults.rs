//! Connections that break, servers that go away or stop writing: nothing that was acknowledged is lost, nothing is written twice,
//! and what nobody knows is called unknown.

use std::collections::HashSet;
use std::time::Duration;

use hub_core::message::{NewMessage, Status};
use hub_core::port::{Consistency, DeliveryQueue, MessageStore, StoreError};
use hub_storage::suite::RealClock;
use uuid::Uuid;

use crate::base::{Base, Node, deadline, service, until};
use crate::proxy::Proxy;

const KILL: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
     WHERE datname = current_database() AND application_name = 'message-hub'";

async fn stored(base: &Base) -> HashSet<Uuid> {
    let ids = sqlx::query_scalar("SELECT id FROM messages").fetch_all(&mut base.connect().await).await;
    ids.unwrap().into_iter().collect()
}

/// Sends until told to stop; ids that were acknowledged, ids whose outcome is unknown, ids that certainly were not taken.
async fn send(node: &Node, done: &tokio_util::sync::CancellationToken) -> [Vec<Uuid>; 3] {
    let mut outcomes = [Vec::new(), Vec::new(), Vec::new()];
    while !done.is_cancelled() {
        let message = node.message("target");
        let id = message.id.0;
        match node.accept(message).await {
            Ok(accepted) => {
                assert_eq!((accepted.id.0, accepted.replayed), (id, false));
                outcomes[0].push(id);
            }
            Err(StoreError::Unknown(_)) => outcomes[1].push(id),
            Err(StoreError::Unavailable { retryable: true, .. }) => outcomes[2].push(id),
            Err(error) => panic!("{error}"),
        }
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_connections_lose_and_double_nothing() {
    let base = Base::migrated().await;
    let node = Node::start(&base.url, 1);
    node.slots.grant(&service("target"), 200);
    let done = tokio_util::sync::CancellationToken::new();
    let kill = async {
        let mut killed = 0;
        while killed < 30 {
            killed += base.number(KILL).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        done.cancel();
    };
    let senders = futures::future::join_all((0..8).map(|_| send(&node, &done)));
    let ((), outcomes) = tokio::join!(kill, senders);
    let stored = stored(&base).await;
    let acknowledged: Vec<Uuid> = outcomes.iter().flat_map(|[yes, ..]| yes.clone()).collect();
    assert!(!acknowledged.is_empty(), "nothing was accepted between the kills");
    assert!(acknowledged.iter().all(|id| stored.contains(id)), "an acknowledged message is lost");
    let refused = outcomes.iter().flat_map(|[.., no]| no);
    assert!(refused.clone().all(|id| !stored.contains(id)), "a message that was refused is there");
    let unknown: usize = outcomes.iter().map(|[_, unknown, _]| unknown.len()).sum();
    assert!(stored.len() <= acknowledged.len() + unknown, "more is stored than was sent");
    base.audit().await;
    // Nothing has to be restarted.
    until("it works again", || async { node.accept(node.message("target")).await.is_ok() }).await;
    node.end().await;
}

/// Through a proxy, with one flusher whose connection has the statement already.
async fn behind_proxy() -> (Base, Proxy, Node) {
    let base = Base::migrated().await;
    let proxy = Proxy::before(&base.url).await;
    let node = Node::start_with(proxy.url(), 1, std::sync::Arc::new(RealClock), |options| {
        options.flushers = 1;
    });
    for _ in 0..3 {
        node.accept(node.message("warm")).await.unwrap();
    }
    (base, proxy, node)
}

/// Accepts a message whose insert is not answered although it is done.
async fn accept_unanswered(
    base: &Base,
    proxy: &Proxy,
    node: &Node,
    within: Option<Duration>,
) -> (NewMessage, Result<bool, StoreError>) {
    let message = node.message("target");
    proxy.cut_answer_to(&message.content, within.is_some());
    let result = node.accept_within(message.clone(), within.unwrap_or(Duration::from_secs(60))).await;
    assert_eq!(proxy.cuts(), 1, "the answer was cut off");
    let there = base.number(&format!("SELECT count(*) FROM messages WHERE id = '{}'", message.id)).await;
    assert_eq!(there, 1, "after the commit");
    (message, result.map(|accepted| accepted.replayed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_lost_after_the_commit_is_asked_for_again() {
    let (base, proxy, node) = behind_proxy().await;
    node.slots.grant(&service("target"), 1);
    let (message, result) = accept_unanswered(&base, &proxy, &node, None).await;
    assert!(!result.unwrap(), "it is the first, not a replay");
    let count = base.number("SELECT count(*) FROM messages WHERE target_service = 'target'").await;
    assert_eq!(count, 1, "written once");
    // The claim that it was written with is used.
    let handed = node.handed().await;
    assert_eq!(handed.iter().map(|one| one.message.id).collect::<Vec<_>>(), [message.id]);
    assert_eq!(node.slots.free(&service("target")), 0);
    base.audit().await;
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_nobody_can_tell_is_unknown_and_its_claim_is_given_back() {
    let (base, proxy, node) = behind_proxy().await;
    node.slots.grant(&service("target"), 1);
    let (message, result) = accept_unanswered(&base, &proxy, &node, Some(Duration::from_secs(6))).await;
    assert!(matches!(result, Err(StoreError::Unknown(_))), "{result:?}");
    assert_eq!(node.slots.free(&service("target")), 1, "the slot is free");
    // Now it is known that nothing can be sent: certainly not done, and said before the deadline.
    let refused = tokio::time::timeout(Duration::from_secs(50), node.accept(node.message("target"))).await;
    let refused = refused.expect("it does not wait for the deadline");
    assert!(matches!(refused, Err(StoreError::Unavailable { retryable: true, .. })), "{refused:?}");
    proxy.set_down(false);
    until("the claim is given back", || async {
        let record = node.store.get(message.id, Consistency::Linearizable, deadline()).await;
        record.is_ok_and(|record| record.unwrap().status == Status::Pending)
    })
    .await;
    let claimed = node.claim("target", 5).await;
    assert_eq!(claimed.iter().map(|one| one.claim.attempt).collect::<Vec<_>>(), [2]);
    base.audit().await;
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_that_nobody_got_are_given_back() {
    let (base, proxy, node) = behind_proxy().await;
    node.accept(node.message("target")).await.unwrap();
    let want =
        hub_core::port::Want { target: service("target"), count: 1, lease: Duration::from_secs(3_600) };
    proxy.cut_answer_to("COMMIT", false);
    let lost = node.store.claim(vec![want], deadline()).await;
    assert!(matches!(lost, Err(StoreError::Unknown(_))), "{lost:?}");
    assert_eq!(proxy.cuts(), 1);
    until("the message can be claimed", || async { !node.claim("target", 1).await.is_empty() }).await;
    base.audit().await;
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_writes_no_more_is_waited_for() {
    let base = Base::migrated().await;
    let node = Node::start(&base.url, 1);
    let first = node.accept(node.message("target")).await.unwrap();
    assert!(node.store.takes_writes(deadline()).await.unwrap());
    let name = base.url.rsplit_once('/').unwrap().1.to_owned();
    base.sql(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    base.number(KILL).await;
    until("writes are refused", || async {
        matches!(
            // What was under way when the connection broke stays unknown.
            node.accept_within(node.message("target"), Duration::from_secs(2)).await,
            Err(StoreError::Unavailable { retryable: true, reason }) if reason.contains("read-only")
        )
    })
    .await;
    assert!(!node.store.takes_writes(deadline()).await.unwrap(), "it is known without a write");
    let record = node.store.get(first.id, Consistency::Linearizable, deadline()).await.unwrap();
    assert_eq!(record.unwrap().message.id, first.id, "reads go on");
    let again = sqlx::query(sqlx::AssertSqlSafe(format!(
        "ALTER DATABASE {name} SET default_transaction_read_only = off"
    )));
    let mut admin = base.connect().await;
    sqlx::query("SET default_transaction_read_only = off").execute(&mut admin).await.unwrap();
    again.execute(&mut admin).await.unwrap();
    until("it is known", || async { node.store.takes_writes(deadline()).await.unwrap() }).await;
    until("it writes again", || async { node.accept(node.message("target")).await.is_ok() }).await;
    base.audit().await;
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_nothing_holds_nobody_longer_than_the_deadline() {
    let (base, proxy, node) = behind_proxy().await;
    proxy.set_stalled(true);
    let brief = Duration::from_secs(2);
    let calls = (0..6).map(|number| {
        let (message, node) = (node.message("target"), &node);
        async move {
            tokio::time::sleep(Duration::from_millis(number * 100)).await;
            (message.id, node.accept_within(message, brief).await)
        }
    });
    let read = node.store.get(hub_core::id::MessageId(Uuid::nil()), Consistency::Stale, soon(&node, brief));
    let look = node.store.takes_writes(soon(&node, brief));
    let all = async { tokio::join!(futures::future::join_all(calls), read, look) };
    let (results, read, look) =
        tokio::time::timeout(Duration::from_secs(50), all).await.expect("nobody hangs");
    assert!(matches!(read, Err(StoreError::Unavailable { retryable: true, .. })), "{read:?}");
    assert!(matches!(look, Err(StoreError::Unavailable { retryable: true, .. })), "{look:?}");
    proxy.set_stalled(false);
    until("it works again", || async { node.accept(node.message("target")).await.is_ok() }).await;
    let stored = stored(&base).await;
    for (id, result) in results {
        match result {
            Err(StoreError::Unknown(_)) => {}
            Err(StoreError::Unavailable { retryable: true, .. }) => {
                assert!(!stored.contains(&id.0), "a message that was refused is there");
            }
            other => panic!("{other:?}"),
        }
    }
    base.audit().await;
    node.end().await;
}

fn soon(node: &Node, within: Duration) -> std::time::Instant {
    node.clock.instant() + within
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_jsonb_cannot_hold_is_stored_all_the_same() {
    let base = Base::migrated().await;
    let node = Node::start(&base.url, 1);
    let mut odd = node.message("target");
    odd.metadata = Some("{\"a\":\"\\u0000\",\"b\":\"\\ud800\"}".into());
    odd.correlation_id = Some("c\0d".into());
    odd.content = "[\"\\u0000\", 1e400]".into();
    node.accept(odd.clone()).await.unwrap();
    let record = node.store.get(odd.id, Consistency::Linearizable, deadline()).await.unwrap().unwrap();
    assert_eq!((record.message.metadata, record.message.content), (odd.metadata, odd.content));
    let filter = hub_core::message::Filter { correlation_id: odd.correlation_id, ..Default::default() };
    let page = node.store.list(&filter, None, 10).await.unwrap();
    assert_eq!(page.items.len(), 1, "found by its correlation id");
    let mut plain = node.message("target");
    plain.metadata = Some("{\"correlation_id\":\"x\"}".into());
    node.accept(plain).await.unwrap();
    let found = base.number("SELECT count(*) FROM messages WHERE metadata->>'correlation_id' = 'x'").await;
    assert_eq!(found, 1, "metadata can be asked for in SQL");
    node.end().await;
}
