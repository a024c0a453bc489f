//! A transaction elsewhere that is held open: nothing that is deleted meanwhile can be cleared away.

use anyhow::Context;
use hub_chaos_tests::servers::Mix;
use hub_chaos_tests::{scenario, sizes, wait};

use super::stage::{ENDED, RECOVERED, Stage};

/// What the holder does after it has looked.
const SLEEP: &str = "SELECT pg_sleep(86400)";

/// It goes on in steps of so many messages, each of which has the usual time.
const STEP: usize = 5_000;

/// The holder, while its snapshot holds.
const HOLDER: &str =
    "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(86400)' AND backend_xmin IS NOT NULL";

#[test]
fn a_transaction_that_is_held_open_stops_nothing() -> anyhow::Result<()> {
    scenario::run("held", async |folder| {
        let mut stage = Stage::start(folder, Mix::Postgres).await?;
        stage.send()?;
        stage.accepts(1).await?;
        let holder = [
            "psql",
            "--username=message_hub",
            "--command=BEGIN ISOLATION LEVEL REPEATABLE READ",
            "--command=SELECT count(*) FROM deliveries",
            &format!("--command={SLEEP}"),
        ];
        let kept = tokio::select! {
            ended = stage.servers.postgres.exec(&holder) => anyhow::bail!("the holder has ended: {ended:?}"),
            kept = beside(&stage) => kept?,
        };
        stage.rest().await;
        wait::until("what was kept is cleared away", RECOVERED, async || {
            let kept = dead(&stage).await?;
            anyhow::ensure!(kept == 0, "{kept} dead rows are kept");
            Ok(Some(()))
        })
        .await?;
        stage.happened(format!("{kept} dead rows were kept for a transaction"));
        stage.close_books(ENDED).await
    })
}

/// Accepts and delivers while the snapshot is held; how many dead rows were kept for it. It ends the holder.
async fn beside(stage: &Stage) -> anyhow::Result<usize> {
    let pid = wait::until("the transaction is held", RECOVERED, async || {
        let pid = stage.servers.postgres.sql(HOLDER).await?;
        Ok((!pid.is_empty()).then_some(pid))
    })
    .await?;
    let mut left = sizes::of_this_run().beside_held;
    while left > 0 {
        let some = left.min(STEP);
        stage.accepts(some).await?;
        left -= some;
    }
    stage.works().await?;
    let kept = dead(stage).await?;
    anyhow::ensure!(kept > 0, "no row was kept: the transaction was not held");
    let still = stage.servers.postgres.sql(HOLDER).await?;
    anyhow::ensure!(still == pid, "the holder has ended");
    stage.servers.postgres.sql(&format!("SELECT pg_terminate_backend({pid})")).await?;
    Ok(kept)
}

/// Vacuums the table of open messages; how many of its dead rows stay.
async fn dead(stage: &Stage) -> anyhow::Result<usize> {
    let told = stage.servers.postgres.sql("VACUUM (VERBOSE) deliveries").await?;
    let (before, _) = told.split_once(" are dead but not yet removable").context("what VACUUM tells")?;
    Ok(before.rsplit(' ').next().context("a number")?.parse()?)
}
