//! A server of a test's own, to be stopped, frozen, killed and emptied.

use std::fmt;

use crate::engine::Engine;
use crate::kind::WORD;
use crate::launch::{self, Launch, Started};
use crate::owner::Owner;
use crate::{Kind, probe};

/// A server in a container of its own, which is removed when this is dropped. Its URL stays the same for as long as it
/// exists, whatever happens to it. Drop it inside the async runtime.
pub struct Server {
    kind: Kind,
    started: Started,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("kind", &self.kind).field("port", &self.started.port).finish()
    }
}

impl Server {
    /// A new, empty server that takes connections.
    ///
    /// # Errors
    /// There is no Docker engine or no image (`deploy/servers images` makes both), or the server does not start.
    pub async fn launch(kind: Kind) -> anyhow::Result<Self> {
        Self::launch_with(kind, &[]).await
    }

    /// As [`Server::launch`], with more arguments for the program (`-c`, `max_connections=20`); RabbitMQ takes none.
    ///
    /// # Errors
    /// As [`Server::launch`].
    pub async fn launch_with(kind: Kind, arguments: &[&str]) -> anyhow::Result<Self> {
        anyhow::ensure!(kind != Kind::RabbitMq || arguments.is_empty(), "RabbitMQ takes no arguments");
        let started = Launch::new(kind, &Owner::this()?).arguments(arguments).start().await?;
        Ok(Self { kind, started })
    }

    /// What a client connects to: the database `message_hub`, the virtual host `/`, the database 0.
    pub fn url(&self) -> String {
        self.kind.url(self.started.port, self.kind.first_place())
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.started.port
    }

    /// Ends it in its own orderly way: PostgreSQL's fast shutdown, SIGTERM for the others.
    ///
    /// # Errors
    /// The engine refused.
    pub async fn stop(&self) -> anyhow::Result<()> {
        Ok(self.started.container.stop_with_timeout(Some(60)).await?)
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&self) -> anyhow::Result<()> {
        Engine::connect().await?.kill(self.id()).await
    }

    /// Starts it after [`Server::stop`] or [`Server::kill`], with the data it had, and waits until it takes connections.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(&self) -> anyhow::Result<()> {
        self.started.container.start().await?;
        self.wait_until_ready().await
    }

    /// [`Server::stop`], then [`Server::start`].
    ///
    /// # Errors
    /// As these.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.stop().await?;
        self.start().await
    }

    /// Freezes it: connections stay open, new ones are taken, nothing is answered.
    ///
    /// # Errors
    /// It does not run.
    pub async fn pause(&self) -> anyhow::Result<()> {
        Ok(self.started.container.pause().await?)
    }

    /// Lets it go on after [`Server::pause`].
    ///
    /// # Errors
    /// It is not paused.
    pub async fn unpause(&self) -> anyhow::Result<()> {
        Ok(self.started.container.unpause().await?)
    }

    /// As if its disk was lost and replaced by a new one: killed, emptied, started.
    ///
    /// # Errors
    /// It does not run, or not again.
    pub async fn wipe(&self) -> anyhow::Result<()> {
        self.kill().await?;
        launch::empty(self.kind, self.id()).await?;
        self.start().await
    }

    /// Runs a command inside its container and answers what it printed: `rabbitmqctl close_all_connections bye`.
    ///
    /// # Errors
    /// It does not run, or the command did not end with 0; what it printed is in the error.
    pub async fn exec(&self, command: &[&str]) -> anyhow::Result<String> {
        Engine::connect().await?.exec(self.id(), command).await
    }

    /// PostgreSQL: runs SQL as the superuser, in the database `message_hub`, and answers the bare rows.
    ///
    /// # Errors
    /// As [`Server::exec`].
    pub async fn sql(&self, sql: &str) -> anyhow::Result<String> {
        let psql = ["psql", "-U", WORD, "-d", WORD, "-v", "ON_ERROR_STOP=1", "-qAtc", sql];
        Ok(self.exec(&psql).await?.trim_end().to_owned())
    }

    /// Redis: runs a command in database 0 and answers what it printed.
    ///
    /// # Errors
    /// As [`Server::exec`].
    pub async fn redis(&self, command: &[&str]) -> anyhow::Result<String> {
        let client = ["redis-cli", "-e", "--no-auth-warning", "-a", WORD];
        Ok(self.exec(&[&client[..], command].concat()).await?.trim_end().to_owned())
    }

    /// Whether it takes connections right now; waits at most five seconds for its answer.
    pub async fn is_ready(&self) -> bool {
        probe::is_ready(self.kind, self.started.port).await
    }

    /// Waits until it takes connections.
    ///
    /// # Errors
    /// Not within three minutes; what it printed last is in the error.
    pub async fn wait_until_ready(&self) -> anyhow::Result<()> {
        launch::wait_until_ready(self.kind, self.started.port, self.id()).await
    }

    fn id(&self) -> &str {
        self.started.container.id()
    }
}
