//! The servers that a cluster keeps its messages in.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use hub_test_servers::{Kind, Server};

use crate::wait;

/// Until a server has done what it was told.
const DONE: Duration = Duration::from_secs(120);

/// Which servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Postgres as the store and the queue.
    Postgres,
    /// Postgres as the store, RabbitMQ as the queue, Redis as the cache.
    Everything,
}

/// Servers of one test, in containers of their own. Drop them inside the runtime.
#[derive(Debug)]
pub struct Servers {
    /// The store.
    pub postgres: Server,
    rabbitmq: Option<Server>,
    redis: Option<Server>,
}

impl Servers {
    /// Starts them, empty, and waits until they take connections.
    ///
    /// # Errors
    /// No Docker engine, no image, or one does not start.
    pub async fn launch(mix: Mix) -> anyhow::Result<Self> {
        let launch = async |kind, wanted| match wanted {
            true => Server::launch(kind).await.map(Some),
            false => Ok(None),
        };
        let (postgres, rabbitmq, redis) = tokio::try_join!(
            Server::launch(Kind::Postgres),
            launch(Kind::RabbitMq, mix == Mix::Everything),
            launch(Kind::Redis, mix == Mix::Everything)
        )?;
        Ok(Self { postgres, rabbitmq, redis })
    }

    /// RabbitMQ.
    ///
    /// # Errors
    /// It is not part of this test.
    pub fn rabbitmq(&self) -> anyhow::Result<&Server> {
        self.rabbitmq.as_ref().context("a test with RabbitMQ")
    }

    /// Redis.
    ///
    /// # Errors
    /// It is not part of this test.
    pub fn redis(&self) -> anyhow::Result<&Server> {
        self.redis.as_ref().context("a test with Redis")
    }

    /// What tells a node of them.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut names = vec![("DATABASE_URL", self.postgres.url())];
        if let Some(rabbitmq) = &self.rabbitmq {
            names.push(("RABBITMQ_URL", rabbitmq.url()));
            names.push(("QUEUE_PREFIX", "chaos".to_owned()));
        }
        if let Some(redis) = &self.redis {
            names.push(("REDIS_URL", redis.url()));
        }
        names
    }

    /// When Postgres was started.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn postgres_started(&self) -> anyhow::Result<String> {
        self.postgres.sql("SELECT pg_postmaster_start_time()").await
    }

    /// When RabbitMQ was started.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn rabbitmq_started(&self) -> anyhow::Result<String> {
        let milliseconds = "erlang:convert_time_unit(erlang:system_info(start_time) + erlang:time_offset(), \
                            native, millisecond).";
        self.rabbitmqctl(&["eval", milliseconds]).await
    }

    /// What Redis calls its present run.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn redis_run(&self) -> anyhow::Result<String> {
        let info = self.redis()?.redis(&["INFO", "server"]).await?;
        let run = info.lines().find_map(|line| line.trim().strip_prefix("run_id:"));
        Ok(run.context("INFO names no run")?.to_owned())
    }

    /// Runs `rabbitmqctl`, and answers the bare rows. A server that takes connections may need a moment before it takes
    /// commands.
    ///
    /// # Errors
    /// The command is refused until the end.
    pub async fn rabbitmqctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let command = [&["rabbitmqctl", "-s"], arguments].concat();
        wait::until(&format!("{command:?}"), DONE, async || {
            Ok(Some(self.rabbitmq()?.exec(&command).await?.trim().to_owned()))
        })
        .await
    }

    /// How many messages lie in each queue of RabbitMQ, not handed to a hub yet.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn depths(&self) -> anyhow::Result<HashMap<String, usize>> {
        let rows = self.rabbitmqctl(&["list_queues", "name", "messages_ready"]).await?;
        let row = |row: &str| {
            let (name, depth) = row.split_once('\t').context("a name and a number")?;
            Ok((name.to_owned(), depth.trim().parse()?))
        };
        rows.lines().map(row).collect()
    }
}
