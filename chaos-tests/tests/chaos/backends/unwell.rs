//! Servers that are there and cannot do their part: a hub lives with them, says so in few words, and so does `doctor`.

use std::time::Duration;

use anyhow::Context;
use hub_chaos_tests::client::{Answer, Client};
use hub_chaos_tests::doctor::{self, Finding};
use hub_chaos_tests::node::Node;
use hub_chaos_tests::receiver::Receiver;
use hub_chaos_tests::servers::{Mix, Servers};
use hub_chaos_tests::{scenario, wait};
use hub_test_servers::{Kind, Server};
use serde_json::json;

use super::refused::{ENDS, Hubs, complaints, is_ready, ready, sql, tells_no_secret};

/// A hub by itself, with a service to deliver to.
pub(super) struct Lone {
    client: Client,
    url: String,
    receiver: Receiver,
}

impl Lone {
    pub(super) async fn new(node: &Node) -> anyhow::Result<Self> {
        let url = node.url()?.trim_end_matches('/').to_owned();
        Ok(Self { client: Client::new("sender")?, url, receiver: Receiver::start(Duration::ZERO).await? })
    }

    pub(super) async fn register(&self, target: &str) -> anyhow::Result<()> {
        let instance = json!({ "url": self.receiver.url() });
        let body = json!({ "name": target, "instances": [instance], "health_check": { "kind": "none" } });
        let url = format!("{}/api/v1/services/register", self.url);
        Client::new(target)?.post(&url, &body).await?.success().map(drop)
    }

    async fn send(&self, target: &str) -> anyhow::Result<Answer> {
        let body = json!({ "target_service": target, "message_type": "chaos.lone", "content": 1 });
        self.client.post(&format!("{}/api/v1/messages", self.url), &body).await
    }

    /// A message is taken, and arrives.
    pub(super) async fn delivers(&self, target: &str) -> anyhow::Result<()> {
        let answer = self.send(target).await?.success()?;
        let id = answer.text("id")?;
        wait::until("it arrives", ENDS, async || Ok((self.receiver.arrived(id) > 0).then_some(()))).await
    }
}

fn complaint<'a>(found: &'a [Finding], part: &str) -> anyhow::Result<&'a Finding> {
    let of_part: Vec<_> =
        found.iter().filter(|finding| finding.part == part && finding.is_complaint()).collect();
    let [one] = of_part.as_slice() else { anyhow::bail!("not one line about {part}: {found:#?}") };
    Ok(one)
}

#[test]
fn the_doctor_finds_healthy_servers_healthy_and_says_who_is_away() -> anyhow::Result<()> {
    scenario::run("doctor", async |folder| {
        let servers = Servers::launch(Mix::Everything).await?;
        let environment = servers.environment();
        let data = folder.path().join("none");
        let migrate = "migrations are missing";
        let found = doctor::examine(&data, &environment).await?;
        let other = found.iter().find(|finding| finding.is_complaint() && !finding.found.contains(migrate));
        anyhow::ensure!(other.is_none(), "{found:#?}");
        for part in ["postgres", "rabbitmq", "redis", "clock"] {
            anyhow::ensure!(
                found.iter().any(|finding| finding.part == part),
                "nothing of {part}: {found:#?}"
            );
        }
        servers.postgres.stop().await?;
        servers.rabbitmq()?.stop().await?;
        servers.redis()?.stop().await?;
        let found = doctor::examine(&data, &environment).await?;
        for (part, status, code) in [
            ("postgres", "failing", Some("HUB-2023")),
            ("rabbitmq", "failing", Some("HUB-2027")),
            ("redis", "degraded", None),
        ] {
            let one = complaint(&found, part)?;
            anyhow::ensure!(one.status == status && one.code.as_deref() == code, "{one:#?}");
        }
        let count = found.iter().filter(|finding| finding.is_complaint()).count();
        anyhow::ensure!(count == 3, "{count} complaints: {found:#?}");
        tells_no_secret(&format!("{found:?}"))
    })
}

#[test]
fn a_redis_that_wants_another_password_is_said_once_and_changes_nothing() -> anyhow::Result<()> {
    scenario::run("unwell-redis", async |folder| {
        let (postgres, redis) =
            tokio::try_join!(Server::launch(Kind::Postgres), Server::launch(Kind::Redis))?;
        let mut hubs = Hubs::new(folder)?;
        for (number, login) in ["", ":hunter2@"].into_iter().enumerate() {
            let port = redis.port();
            let environment = [
                ("DATABASE_URL", postgres.url()),
                ("REDIS_URL", format!("redis://{login}127.0.0.1:{port}/0")),
            ];
            let mut node = hubs.hub(&environment)?;
            node.start(&[]).await?;
            is_ready(&node).await?;
            let (lone, target) = (Lone::new(&node).await?, format!("target-{number}"));
            lone.register(&target).await?;
            lone.delivers(&target).await?;
            // It tries again every second or so: if each time were a line, there would be several by now.
            tokio::time::sleep(Duration::from_secs(4)).await;
            let log = node.log()?;
            let told = complaints(&log);
            let [one] = told.as_slice() else { anyhow::bail!("not one complaint: {told:#?}") };
            anyhow::ensure!(one.contains("password") && one.contains("REDIS_URL"), "{one}");
            let found = doctor::examine(&node.data(), &environment).await?;
            let one = complaint(&found, "redis")?;
            anyhow::ensure!(one.status == "degraded" && one.found.contains("password"), "{one:#?}");
            tells_no_secret(&format!("{log} {found:?}"))?;
            node.stop().await?;
        }
        Ok(())
    })
}

#[test]
fn a_database_that_takes_no_writes_is_waited_for() -> anyhow::Result<()> {
    scenario::run("unwell-read-only", async |folder| {
        let server = Server::launch(Kind::Postgres).await?;
        let environment = [("DATABASE_URL", server.url())];
        let mut node = Hubs::new(folder)?.hub(&environment)?;
        node.start(&[]).await?;
        is_ready(&node).await?;
        let lone = Lone::new(&node).await?;
        lone.register("target").await?;
        lone.delivers("target").await?;

        // For its database alone, and known to new connections only: those that it has are closed.
        server.sql("ALTER DATABASE message_hub SET default_transaction_read_only = on").await?;
        let others =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'message-hub'";
        server.sql(others).await?;
        is_not_ready(&node, "takes no writes").await?;
        let refused = lone.send("target").await?;
        anyhow::ensure!(refused.status == 503 && refused.code() == "HUB-1406", "{refused:?}");
        let found = doctor::examine(&node.data(), &environment).await?;
        let one = complaint(&found, "postgres")?;
        anyhow::ensure!(one.code.as_deref() == Some("HUB-2023"), "{one:#?}");
        // A start without it waits, and says so.
        node.stop().await?;
        node.start(&[]).await?;
        is_not_ready(&node, "takes no writes").await?;

        let writable = "ALTER DATABASE message_hub SET default_transaction_read_only = off";
        sql(&server, "postgres", writable).await?;
        is_ready(&node).await?;
        lone.delivers("target").await?;
        let log = node.log()?;
        let told = complaints(&log);
        anyhow::ensure!(told.len() <= 8, "{} complaints: {told:#?}", told.len());
        Ok(())
    })
}

async fn is_not_ready(node: &Node, says: &str) -> anyhow::Result<()> {
    let client = Client::new("sender")?;
    wait::until(&format!("the hub says: {says}"), ENDS, async || {
        let answer = client.get(&ready(node)?).await.context("no answer")?;
        let fits = answer.status == 503 && answer.body.to_string().contains(says);
        anyhow::ensure!(fits, "{answer:?}");
        Ok(Some(()))
    })
    .await
}
