//! Days pass: the clocks of hubs and database are set ahead together, and midnight comes under load.

use std::time::Duration;

use anyhow::Context;
use hub_chaos_tests::client::Answer;
use hub_chaos_tests::servers::Mix;
use hub_chaos_tests::shim::CLOCK_AHEAD;
use hub_chaos_tests::{scenario, wait};
use hyper::Method;
use serde_json::json;

use super::stage::{RECOVERED, Stage};
use crate::support::{TARGETS, delivered};

const SECOND: i64 = 1_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;

/// The hubs start so long before midnight; longer if that was too short.
const BEFORE_MIDNIGHT: [i64; 4] = [20 * SECOND, 45 * SECOND, 90 * SECOND, 180 * SECOND];

/// What time has to do is done after this: some of it is looked for once a minute.
const DONE: Duration = Duration::from_secs(240);

#[test]
fn days_pass() -> anyhow::Result<()> {
    scenario::run("days", async |folder| {
        let mut stage = Stage::start(folder, Mix::Postgres).await?;
        let midnight = shortly_before_midnight(&mut stage).await?;
        let first = with_key(&stage).await?;
        let nobodys = stage.batch("nobody", 1, "?allow_unregistered=true").await?;
        stage.send()?;
        wait::until("midnight", RECOVERED, async || Ok((now(&stage).await? > midnight).then_some(())))
            .await?;
        stage.accepts(200).await?;
        stage.rest().await;
        anyhow::ensure!(with_key(&stage).await? == first, "the key was forgotten at midnight");
        let balance = delivered(&stage.ledger, &stage.receiver).await?;
        anyhow::ensure!(balance.broken.is_empty(), "cancelled, and arrived: {:?}", balance.broken);
        for day in [midnight - DAY, midnight] {
            let count =
                number(&stage, &format!("SELECT count(*) FROM {}", partition(&stage, day).await?)).await?;
            anyhow::ensure!(count > 0, "nothing was accepted on the day of {day}");
        }

        jump_to(&mut stage, midnight + 26 * HOUR).await?;
        stage.works().await?;
        anyhow::ensure!(with_key(&stage).await? != first, "the key is known after 26 hours");
        exists(&stage, midnight + 8 * DAY, true).await?;

        jump_to(&mut stage, midnight + 9 * DAY).await?;
        stage.works().await?;
        exists(&stage, midnight, false).await?;
        // A dead letter stays until somebody looks at it, and so does its day.
        let nobodys = nobodys.first().context("one message")?;
        let status = format!("SELECT status FROM messages WHERE id = '{nobodys}'");
        let status = stage.servers.postgres.sql(&status).await?;
        anyhow::ensure!(status == "dead_letter", "the message that nobody took is {status:?}");
        let left = format!("SELECT count(*) FROM {}", partition(&stage, midnight - DAY).await?);
        anyhow::ensure!(number(&stage, &left).await? == 1, "more than the dead letter is left of its day");
        let old = "SELECT count(*) FROM idempotency WHERE stored_at < hub_now() - interval '25 hours'";
        anyhow::ensure!(number(&stage, old).await? == 0, "old keys are left");
        stage.works().await?;
        stage.are_well()
    })
}

/// The same message with the same key; its id.
async fn with_key(stage: &Stage) -> anyhow::Result<String> {
    let body = json!({
        "target_service": TARGETS.first().context("a target")?,
        "message_type": "chaos.day",
        "content": "once",
    });
    let url = format!("{}/api/v1/messages", stage.url(0)?);
    let answer = stage.cluster.client.call(Method::POST, &url, Some("over-midnight"), Some(&body)).await;
    Ok(answer.and_then(Answer::success)?.text("id")?.to_owned())
}

async fn number(stage: &Stage, sql: &str) -> anyhow::Result<i64> {
    Ok(stage.servers.postgres.sql(sql).await?.parse()?)
}

/// The database's time, in milliseconds.
async fn now(stage: &Stage) -> anyhow::Result<i64> {
    number(stage, "SELECT hub_millis(hub_now())").await
}

/// The table of the messages of the day of this time.
async fn partition(stage: &Stage, time: i64) -> anyhow::Result<String> {
    let name = format!("SELECT 'messages_' || to_char(hub_time({time}) AT TIME ZONE 'UTC', 'YYYYMMDD')");
    stage.servers.postgres.sql(&name).await
}

/// Waits until the day of this time has its table, or has it no longer.
async fn exists(stage: &Stage, time: i64, wanted: bool) -> anyhow::Result<()> {
    let name = partition(stage, time).await?;
    let there = format!("SELECT count(to_regclass('{name}'))");
    wait::until(&format!("{name} is there: {wanted}"), DONE, async || {
        Ok((number(stage, &there).await? == i64::from(wanted)).then_some(()))
    })
    .await
}

/// The hubs are killed, and start at a later time, which is the database's too.
async fn jump_to(stage: &mut Stage, time: i64) -> anyhow::Result<()> {
    let ahead = time - number(stage, "SELECT hub_millis(statement_timestamp())").await?;
    let replace = format!(
        "CREATE OR REPLACE FUNCTION hub_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS \
         $$ SELECT date_trunc('milliseconds', statement_timestamp() + interval '{ahead} milliseconds') $$"
    );
    stage.cluster.kill_all().await?;
    stage.servers.postgres.sql(&replace).await?;
    for node in &mut stage.cluster.nodes {
        node.set(CLOCK_AHEAD, &ahead.to_string());
    }
    stage.cluster.restart_all().await
}

/// Jumps to shortly before midnight, which has not come when the hubs work; that midnight.
async fn shortly_before_midnight(stage: &mut Stage) -> anyhow::Result<i64> {
    for before in BEFORE_MIDNIGHT {
        let midnight = ((now(stage).await? + before).div_euclid(DAY) + 1) * DAY;
        jump_to(stage, midnight - before).await?;
        stage.works_at(0).await?;
        if now(stage).await? < midnight - 5 * SECOND {
            return Ok(midnight);
        }
    }
    anyhow::bail!("the hubs do not start within {BEFORE_MIDNIGHT:?}")
}
