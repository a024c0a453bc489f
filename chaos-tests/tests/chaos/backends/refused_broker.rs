//! Brokers that a hub cannot work with: it refuses to start, with a code, once.

use hub_chaos_tests::{doctor, scenario};
use hub_test_servers::{Kind, Server};

use super::refused::{Hubs, is_ready, refuses};
use crate::support::TARGETS;

const WORD: &str = "message_hub";

/// A user whose rights are changed.
const POOR: &str = "poor";

/// What such a user has to be allowed, and no more: to configure, to write, to read.
const LEAST: [&str; 3] = ["^message-hub\\..*", "^amq\\.default$", "^message-hub\\..*"];

/// What tells a hub of a database and a broker.
struct Pair {
    postgres: Server,
    rabbitmq: Server,
}

impl Pair {
    async fn launch() -> anyhow::Result<Self> {
        let (postgres, rabbitmq) =
            tokio::try_join!(Server::launch(Kind::Postgres), Server::launch(Kind::RabbitMq))?;
        Ok(Self { postgres, rabbitmq })
    }

    fn environment(&self, user: &str, password: &str, place: &str) -> [(&'static str, String); 2] {
        let port = self.rabbitmq.port();
        let broker = format!("amqp://{user}:{password}@127.0.0.1:{port}/{place}");
        [("DATABASE_URL", self.postgres.url()), ("RABBITMQ_URL", broker)]
    }

    async fn rabbitmqctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.rabbitmq.exec(&[&["rabbitmqctl", "-q"], arguments].concat()).await
    }
}

#[test]
fn a_broker_that_will_not_do_is_refused_with_a_code() -> anyhow::Result<()> {
    scenario::run("refused-rabbitmq", async |folder| {
        let (pair, mut hubs) = (Pair::launch().await?, Hubs::new(folder)?);
        let [_, broker] = pair.environment(WORD, WORD, "%2f");
        hubs.refuses(&[broker], "HUB-2001", "DATABASE_URL").await?;
        hubs.refuses(&pair.environment(WORD, "hunter2", "%2f"), "HUB-2024", "password").await?;
        hubs.refuses(&pair.environment(WORD, WORD, "elsewhere"), "HUB-2024", "virtual host").await
    })
}

#[test]
fn a_right_that_is_missing_at_the_broker_is_named() -> anyhow::Result<()> {
    scenario::run("refused-rights", async |folder| {
        let (pair, mut hubs) = (Pair::launch().await?, Hubs::new(folder)?);
        pair.rabbitmqctl(&["add_user", POOR, "hunter2"]).await?;
        let environment = pair.environment(POOR, "hunter2", "%2f");
        hubs.refuses(&environment, "HUB-2024", "virtual host").await?;
        for (lacking, says) in ["make", "write to", "read from"].into_iter().enumerate() {
            let mut rights = LEAST;
            rights.get_mut(lacking).into_iter().for_each(|right| *right = "^$");
            let [configure, write, read] = rights;
            pair.rabbitmqctl(&["set_permissions", POOR, configure, write, read]).await?;
            let says = format!("does not permit to {says} message-hub.");
            hubs.refuses(&environment, "HUB-2025", &says).await?;
        }
        let [configure, write, read] = LEAST;
        pair.rabbitmqctl(&["set_permissions", POOR, configure, write, read]).await?;
        let mut node = hubs.hub(&environment)?;
        node.start(&[]).await?;
        is_ready(&node).await?;
        let found = doctor::examine(&node.data(), &environment).await?;
        anyhow::ensure!(!found.iter().any(doctor::Finding::is_complaint), "{found:#?}");
        Ok(())
    })
}

#[test]
fn a_queue_that_is_another_is_named() -> anyhow::Result<()> {
    scenario::run("refused-queue", async |folder| {
        let (pair, mut hubs) = (Pair::launch().await?, Hubs::new(folder)?);
        let environment = pair.environment(WORD, WORD, "%2f");
        let mut node = hubs.hub(&environment)?;
        node.start(&[]).await?;
        is_ready(&node).await?;
        let stage = super::unwell::Lone::new(&node).await?;
        for target in TARGETS {
            stage.register(target).await?;
            stage.delivers(target).await?;
        }
        let found = doctor::examine(&node.data(), &environment).await?;
        anyhow::ensure!(!found.iter().any(doctor::Finding::is_complaint), "{found:#?}");
        let says = "2 of 2 services have their queue, each for up to 2000 ids; 0 wait in them";
        anyhow::ensure!(found.iter().any(|finding| finding.found.contains(says)), "{found:#?}");
        node.stop().await?;

        // As somebody would have made it by hand.
        let [target, _] = TARGETS;
        let queue = format!("rabbit_misc:r(<<\"/\">>, queue, <<\"message-hub.{target}\">>)");
        let other = format!(
            "{{ok, Old}} = rabbit_amqqueue:lookup({queue}), \
             {{ok, _}} = rabbit_amqqueue:delete(Old, false, false, <<\"test\">>), \
             {{new, _}} = rabbit_amqqueue:declare({queue}, true, false, [], none, <<\"test\">>), made."
        );
        let made = pair.rabbitmqctl(&["eval", &other]).await?;
        anyhow::ensure!(made.trim() == "made", "{made}");
        refuses(&mut node, &environment, "HUB-2026", &format!("message-hub.{target}")).await
    })
}
