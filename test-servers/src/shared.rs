//! One server of each kind for all tests of a run, also where every test is a process of its own.

use std::fs::{File, TryLockError};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;

use crate::engine::Engine;
use crate::kind::WORD;
use crate::launch::{self, Launch, PORT_LABEL};
use crate::owner::{self, Owner};
use crate::{Kind, probe};

/// The label that a shared server is found by.
const LABEL: &str = "message-hub.shared";

/// How many databases the shared Redis has.
const REDIS_DATABASES: &str = "4096";

/// A place of a test's own on the shared server: a PostgreSQL database, a RabbitMQ virtual host, a Redis database, new
/// and empty. The server must stay well: a test that stops it, flushes it or fills it up launches its own.
#[derive(Clone, Debug)]
pub struct Place {
    url: String,
}

impl Place {
    /// A new place on this run's shared server, which the first to ask starts. It lives as long as the test runner.
    ///
    /// # Errors
    /// As [`crate::Server::launch`].
    pub async fn on_shared(kind: Kind) -> anyhow::Result<Self> {
        let (container, port) = find_or_start(kind).await?;
        let engine = Engine::connect().await?;
        let place = make(&engine, kind, &container).await?;
        Ok(Self { url: kind.url(port, &place) })
    }

    /// What a client connects to.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// The container and its port.
async fn find_or_start(kind: Kind) -> anyhow::Result<(String, u16)> {
    let owner = Owner::runner()?;
    let labels = [format!("{}={}", owner::LABEL, owner.label()), format!("{LABEL}={}", kind.name())];
    let _lock = lock().await?;
    if let Some((container, labels)) = Engine::connect().await?.find(&labels).await? {
        let port = labels.get(PORT_LABEL).context("a shared server without its port")?.parse()?;
        if !probe::is_ready(kind, port).await {
            launch::wait_until_ready(kind, port, &container).await?;
        }
        return Ok((container, port));
    }
    let started =
        Launch::new(kind, &owner).arguments(arguments(kind)).label(LABEL, kind.name()).start().await?;
    owner.remove_after()?;
    let found = (started.container.id().to_owned(), started.port);
    // Others use it after this process: what removes it is the end of the runner.
    std::mem::forget(started);
    Ok(found)
}

fn arguments(kind: Kind) -> &'static [&'static str] {
    match kind {
        // Nothing here outlives the run.
        Kind::Postgres => &["-c", "fsync=off", "-c", "full_page_writes=off"],
        Kind::RabbitMq => &[],
        Kind::Redis => &["--databases", REDIS_DATABASES],
    }
}

/// Held while looking for a server or starting one, so that a run has one of each kind. Gone with the process.
async fn lock() -> anyhow::Result<File> {
    let file = File::open(owner::path())?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // Not a wait inside the kernel, which would keep the holder from going on if it runs on the same thread.
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
}

/// Makes a new place and answers its name as a URL writes it.
async fn make(engine: &Engine, kind: Kind, container: &str) -> anyhow::Result<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let process = Owner::this()?.label().replace(':', "_");
    let name = format!("test_{process}_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    match kind {
        Kind::Postgres => {
            engine.exec(container, &["createdb", "-U", WORD, &name]).await?;
            Ok(name)
        }
        Kind::RabbitMq => {
            let make = format!(
                "rabbitmqctl -q add_vhost {name} && rabbitmqctl -q set_permissions -p {name} {WORD} '.*' '.*' '.*'"
            );
            engine.exec(container, &["sh", "-c", &make]).await?;
            Ok(name)
        }
        // Number 0 holds only the counter of the numbers that were given out.
        Kind::Redis => {
            let count = ["redis-cli", "-e", "--no-auth-warning", "-a", WORD, "incr", "places"];
            Ok(engine.exec(container, &count).await?.trim().to_owned())
        }
    }
}
