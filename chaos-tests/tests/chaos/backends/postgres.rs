//! Postgres goes away, or stands still.

use std::time::Duration;

use futures::future::try_join_all;
use hub_chaos_tests::{sizes, wait};
use serde_json::Value;

use super::stage::{RECOVERED, Stage};

/// How long it stands still.
const PAUSE: Duration = Duration::from_secs(30);

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
    stage.happened(format!("Postgres stood still for {PAUSE:?}: each hub refused, none accepted"));
    Ok(())
}

/// Every hub says that it is not ready, and answers a message with 503 or 504; never with success.
async fn nothing_is_accepted(stage: &Stage) -> anyhow::Result<()> {
    let hubs = 0..stage.cluster.nodes.len();
    let answers = try_join_all(hubs.clone().map(|hub| stage.post(hub, ANSWERED))).await?;
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
    for hub in hubs {
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
