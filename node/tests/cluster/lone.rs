//! A cluster of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use hub_core::time::Timestamp;
use hub_node::clock::{Machine, SystemMachine};

use crate::support::{Http, Receiver, lone};

#[tokio::test(flavor = "multi_thread")]
async fn takes_delivers_and_keeps_messages_over_a_restart() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let mut node = lone(SystemMachine, folder.path(), &http, &receiver).await?;
    let id = http.carry(&node.url, "target", 1).await?;
    let seen = receiver.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!((&seen[0]["id"], &seen[0]["content"]["number"]), (&id.clone().into(), &1.into()));

    node.restart().await?;
    node.ready(&http).await?;
    http.delivered(&node.url, &id).await?;
    http.carry(&node.url, "target", 2).await?;
    node.stop().await;
    Ok(())
}

/// This machine, with a wall clock that a test sets wrong.
#[derive(Clone, Default)]
struct Jumping(Arc<AtomicI64>);

impl Machine for Jumping {
    fn wall(&self) -> Timestamp {
        let wall = SystemMachine.wall().as_millis();
        Timestamp::from_millis(wall + self.0.load(Ordering::SeqCst))
    }

    fn since_boot(&self) -> Duration {
        SystemMachine.since_boot()
    }

    fn instant(&self) -> Instant {
        SystemMachine.instant()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_an_hour_disturbs_nothing_and_is_said() -> anyhow::Result<()> {
    const HOUR: i64 = 3_600_000;
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let machine = Jumping::default();
    let mut node = lone(machine.clone(), folder.path(), &http, &receiver).await?;
    let mut last = Timestamp::EPOCH;
    for (number, jump) in [0, HOUR, -HOUR, 0].into_iter().enumerate() {
        machine.0.store(jump, Ordering::SeqCst);
        let id = http.send(&node.url, "target", number).await?;
        let message = http.delivered(&node.url, &id).await?;
        let created: Timestamp = message["created_at"].as_str().unwrap_or_default().parse()?;
        let real = SystemMachine.wall();
        assert!(created >= last, "time stepped back from {last} to {created}");
        assert!(
            created.since(real).max(real.since(created)) < Duration::from_secs(120),
            "{created}, really {real}"
        );
        last = created;
        let (_, health) = http.get(&format!("{}/health", node.url)).await?;
        assert_eq!(
            health["checks"]["clock"]["status"],
            if jump == 0 { "ok" } else { "degraded" },
            "{health}"
        );
    }
    node.stop().await;
    Ok(())
}

/// Names and kinds of what a node shows that has done a little of everything.
#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_metrics_is_known() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let mut node = lone(SystemMachine, folder.path(), &http, &receiver).await?;
    http.carry(&node.url, "target", 1).await?;
    let (_, text) = http.get(&format!("{}/metrics", node.url)).await?;
    let mut lines: Vec<&str> =
        text.as_str().unwrap_or_default().lines().filter(|line| line.starts_with("# ")).collect();
    lines.sort_unstable();
    insta::assert_snapshot!(lines.join("\n"));
    node.stop().await;
    Ok(())
}
