//! Starting a container and waiting until its server takes connections.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;
use testcontainers::bollard::models::PortBinding;
use testcontainers::core::WaitFor;
use testcontainers::core::wait::ExitWaitStrategy;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};
use tokio::sync::Mutex;

use crate::engine::{Engine, agree_on_version};
use crate::owner::{self, Owner};
use crate::{Kind, probe};

/// Until a server that was started takes connections, on a busy machine.
const READY: Duration = Duration::from_secs(180);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Another process may take a port between the moment it is found free and the engine's use of it.
const ATTEMPTS: usize = 5;

/// The label with the port on loopback.
pub(crate) const PORT_LABEL: &str = "message-hub.port";

/// A container to be.
pub(crate) struct Launch<'a> {
    kind: Kind,
    owner: &'a Owner,
    arguments: Vec<String>,
    labels: Vec<(&'static str, String)>,
}

/// A container whose server takes connections.
pub(crate) struct Started {
    pub(crate) container: ContainerAsync<GenericImage>,
    /// On loopback, the same for as long as the container exists.
    pub(crate) port: u16,
}

impl<'a> Launch<'a> {
    pub(crate) fn new(kind: Kind, owner: &'a Owner) -> Self {
        Self { kind, owner, arguments: Vec::new(), labels: Vec::new() }
    }

    /// More arguments for the server.
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    pub(crate) fn label(mut self, name: &'static str, value: &str) -> Self {
        self.labels.push((name, value.to_owned()));
        self
    }

    /// Starts it and waits until it takes connections.
    ///
    /// # Errors
    /// No engine, no image, or a server that does not start; what it printed last is in the error.
    pub(crate) async fn start(self) -> anyhow::Result<Started> {
        owner::prepare().await?;
        let mut attempt = 1;
        loop {
            let port = free_port()?;
            match run(self.request(port)).await {
                Ok(container) => {
                    wait_until_ready(self.kind, port, container.id()).await?;
                    return Ok(Started { container, port });
                }
                Err(error) if attempt < ATTEMPTS && is_taken(&error) => attempt += 1,
                Err(error) => {
                    let image = format!("message-hub/{}:{}", self.kind.name(), self.kind.tag());
                    return Err(error).with_context(|| {
                        format!("{image} does not start (`deploy/servers images` makes it)")
                    });
                }
            }
        }
    }

    fn request(&self, port: u16) -> ContainerRequest<GenericImage> {
        let inner = format!("{}/tcp", self.kind.inner_port());
        let command = self.kind.command().iter().map(|&word| word.to_owned());
        let mut request = image(self.kind)
            .with_cmd(command.chain(self.arguments.iter().cloned()))
            .with_label(owner::LABEL, self.owner.label())
            .with_label(PORT_LABEL, port.to_string())
            // PostgreSQL's workers share more than a container's 64 MiB.
            .with_shm_size(256 << 20)
            .with_host_config_modifier(move |host| {
                agree_on_version();
                let binding = PortBinding {
                    host_ip: Some(Ipv4Addr::LOCALHOST.to_string()),
                    host_port: Some(port.to_string()),
                };
                host.publish_all_ports = Some(false);
                host.port_bindings = Some([(inner.clone(), Some(vec![binding]))].into());
            });
        for (name, value) in self.kind.environment() {
            request = request.with_env_var(*name, *value);
        }
        for (name, value) in &self.labels {
            request = request.with_label(*name, value);
        }
        request
    }
}

fn image(kind: Kind) -> GenericImage {
    GenericImage::new(format!("message-hub/{}", kind.name()), kind.tag())
}

/// One at a time in a process: they share a client, and the first to come agrees on its version with the engine.
async fn run(request: ContainerRequest<GenericImage>) -> anyhow::Result<ContainerAsync<GenericImage>> {
    static ONE: Mutex<()> = Mutex::const_new(());
    let _one = ONE.lock().await;
    Ok(request.start().await?)
}

/// Empties the data folder of a container that does not run.
///
/// # Errors
/// The engine refused, or a file could not be deleted.
pub(crate) async fn empty(kind: Kind, container: &str) -> anyhow::Result<()> {
    let owner = Owner::this()?;
    let from = container.to_owned();
    let deleted = WaitFor::exit(ExitWaitStrategy::new().with_exit_code(0));
    let request = image(kind)
        .with_wait_for(deleted)
        .with_entrypoint("find")
        .with_cmd([kind.data(), "-mindepth", "1", "-delete"])
        .with_label(owner::LABEL, owner.label())
        .with_host_config_modifier(move |host| {
            agree_on_version();
            host.volumes_from = Some(vec![from.clone()]);
        });
    run(request).await.context("emptying a volume")?.rm().await?;
    Ok(())
}

/// Waits until the server takes connections.
///
/// # Errors
/// Not in time; what it printed last is in the error.
pub(crate) async fn wait_until_ready(kind: Kind, port: u16, container: &str) -> anyhow::Result<()> {
    let ready = async {
        while !probe::is_ready(kind, port).await {
            tokio::time::sleep(PAUSE).await;
        }
    };
    if tokio::time::timeout(READY, ready).await.is_err() {
        let words = Engine::connect().await?.last_words(container).await;
        anyhow::bail!("{} takes no connections after {READY:?}; it said: {words}", kind.name());
    }
    Ok(())
}

fn is_taken(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    text.contains("port is already allocated") || text.contains("address already in use")
}

/// A port on loopback that nobody listens on, below those that the kernel gives to outgoing connections: while a
/// server is down, a client that tries its port over and over could be given that very port, and meet itself.
fn free_port() -> anyhow::Result<u16> {
    const FIRST: u16 = 20_000;
    const COUNT: u32 = 12_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Apart from those of other test processes, whose ids lie close together.
    let start = std::process::id().wrapping_mul(31) % COUNT;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + u16::try_from((start + step) % COUNT)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port from {FIRST} on is free")
}
