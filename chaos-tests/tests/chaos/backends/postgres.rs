//! Postgres goes away, or stands still.

use std::time::Duration;

use futures::future::try_join_all;
use hub_chaos_tests::{sizes, wait};
use hub_test_servers::Server;
use serde_json::Value;

use super::refused::complaints;
use super::stage::{RECOVERED, Stage};

/// How long it stands still.
const PAUSE: Duration = Duration::from_secs(30);

/// Most lines of a hub about one fault, however many requests it refuses meanwhile.
const FEW: usize = 40;

/// Any hub answers within this, whatever its store does.
const ANSWERED: Duration = Duration::from_secs(90);

/// It is stopped in good order, and started.
pub(crate) async fn restarted(stage: &mut Stage) -> anyhow::Result<()> {
    stage.accepts(sizes::of_this_run().between).await?;
    let before = stage.servers.postgres_started().await?;
    stage.servers.postgres.stop().await?;
    nothing_is_accepted(stage).await?;
    stage.servers.postgres.start().await?;
    is_another(stage, "stopped", &before).await
}

/// It dies, and recovers from its log.
pub(crate) async fn killed(stage: &mut Stage) -> anyhow::Result<()> {
    stage.accepts(sizes::of_this_run().between).await?;
    let before = stage.servers.postgres_started().await?;
    stage.servers.postgres.kill().await?;
    nothing_is_accepted(stage).await?;
    stage.servers.postgres.start().await?;
    is_another(stage, "killed", &before).await
}

async fn is_another(stage: &mut Stage, how: &str, before: &str) -> anyhow::Result<()> {
    let after = stage.servers.postgres_started().await?;
    anyhow::ensure!(after != before, "Postgres runs since {before}: it was not {how}");
    stage.works().await?;
    stage.happened(format!("Postgres of {before} was {how}; it runs since {after}"));
    Ok(())
}

/// It is frozen: connections stay, and nothing answers. What is sent meanwhile is refused or unknown.
pub(crate) async fn paused(stage: &mut Stage) -> anyhow::Result<()> {
    stage.accepts(sizes::of_this_run().between).await?;
    let told = told(stage)?;
    stage.servers.postgres.pause().await?;
    let probes = async {
        nothing_is_accepted(stage).await?;
        // What was committed before the pause has been answered by then.
        Ok(stage.ledger.accepted())
    };
    let (before, ()) = tokio::join!(probes, tokio::time::sleep(PAUSE));
    let (before, after): (anyhow::Result<usize>, _) = (before, stage.ledger.accepted());
    let answered = stage.servers.postgres.is_ready().await;
    stage.servers.postgres.unpause().await?;
    let before = before?;
    anyhow::ensure!(!answered, "Postgres took connections: it was not paused");
    anyhow::ensure!(before == after, "{} were accepted while Postgres stood still", after - before);
    stage.works().await?;
    let lines = self::told(stage)? - told;
    anyhow::ensure!(lines <= FEW * stage.cluster.nodes.len(), "{lines} warnings about one pause");
    stage.happened(format!("Postgres stood still for {PAUSE:?}: each hub refused, none accepted"));
    Ok(())
}

/// Every hub says that it is not ready, and answers a message with 503 or 504; never with success.
async fn nothing_is_accepted(stage: &Stage) -> anyhow::Result<()> {
    let hubs = 0..stage.cluster.nodes.len();
    let answers = try_join_all(hubs.map(|hub| stage.post(hub, ANSWERED))).await?;
    for (status, body) in answers {
        let code = body.get("code").and_then(Value::as_str).unwrap_or_default();
        let fits = match status {
            503 => code.starts_with("HUB-"),
            504 => {
                body.get("outcome").and_then(Value::as_str) == Some("unknown")
                    && body.get("message_id").is_some()
            }
            _ => false,
        };
        anyhow::ensure!(fits, "without Postgres: {status} {body}");
    }
    none_is_ready(stage).await
}

/// Waits until every hub says that it is not ready.
async fn none_is_ready(stage: &Stage) -> anyhow::Result<()> {
    for hub in 0..stage.cluster.nodes.len() {
        wait::until("the hub says that it is not ready", RECOVERED, async || {
            let answer = stage.cluster.client.get(&format!("{}/readyz", stage.url(hub)?)).await?;
            let says = answer.status == 503 && answer.body.to_string().contains("Postgre");
            anyhow::ensure!(says, "{answer:?}");
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}

/// How many warnings and errors all hubs have logged.
fn told(stage: &Stage) -> anyhow::Result<usize> {
    stage.cluster.nodes.iter().map(|node| Ok(complaints(&node.log()?).len())).sum()
}

/// It takes no writes any more, as a server that became a standby; then it does again.
pub(crate) async fn read_only(stage: &mut Stage) -> anyhow::Result<()> {
    stage.accepts(sizes::of_this_run().between).await?;
    write_allowed(stage, false).await?;
    // The server's sessions hear of it one after the other.
    none_is_ready(stage).await?;
    nothing_is_accepted(stage).await?;
    let shown = stage.servers.postgres.sql("SHOW transaction_read_only").await?;
    anyhow::ensure!(shown == "on", "Postgres took writes: transaction_read_only is {shown}");
    write_allowed(stage, true).await?;
    stage.works().await?;
    stage.happened("Postgres was read-only for a while: each hub refused, none accepted");
    Ok(())
}

async fn write_allowed(stage: &Stage, allowed: bool) -> anyhow::Result<()> {
    let set =
        format!("ALTER SYSTEM SET default_transaction_read_only = {}", if allowed { "off" } else { "on" });
    stage.servers.postgres.sql(&set).await?;
    stage.servers.postgres.sql("SELECT pg_reload_conf()").await.map(drop)
}

/// A small disk, which holds all tables that are made after this.
const DISK: &str = "/dev/shm/disk";

/// What takes all the room that is left on it.
const FILLER: &str = "/dev/shm/filler";

/// Gives the database a disk that can be filled, before it has tables.
pub(crate) async fn on_small_disk(server: &Server) -> anyhow::Result<()> {
    server.exec(&["mkdir", "-m", "700", DISK]).await?;
    server.sql(&format!("CREATE TABLESPACE small LOCATION '{DISK}'")).await?;
    server.sql("ALTER DATABASE message_hub SET default_tablespace = small").await.map(drop)
}

/// Its disk is full for a while, and messages are refused as soon as one needs room.
pub(crate) async fn full(stage: &mut Stage) -> anyhow::Result<()> {
    stage.accepts(sizes::of_this_run().between).await?;
    let fill = format!("dd if=/dev/zero of={FILLER} bs=4k 2>&1 || true");
    let told = stage.servers.postgres.exec(&["sh", "-c", &fill]).await?;
    anyhow::ensure!(told.contains("No space left on device"), "the disk is not full: {told}");
    let hubs = stage.cluster.nodes.len();
    for hub in 0..hubs {
        wait::until("a message is refused for want of room", RECOVERED, async || {
            let (status, body) = stage.post(hub, ANSWERED).await?;
            let refused = status == 503 && body.to_string().contains("(53100)");
            if !refused && status != 202 {
                return Ok(Some(Err(anyhow::anyhow!("on a full disk: {status} {body}"))));
            }
            Ok(refused.then_some(Ok(())))
        })
        .await??;
    }
    stage.servers.postgres.exec(&["rm", FILLER]).await?;
    stage.works().await?;
    stage.happened("Postgres had no room on its disk for a while: each hub refused");
    Ok(())
}
