//! What testcontainers has no words for: containers of other processes, a hard kill, the version of the API.

use std::collections::HashMap;

use anyhow::Context;
use futures::StreamExt;
use testcontainers::bollard::Docker;
use testcontainers::bollard::container::LogOutput;
use testcontainers::bollard::exec::{CreateExecOptions, StartExecResults};
use testcontainers::bollard::query_parameters::{
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder,
};
use testcontainers::core::client::docker_client_instance;

/// The Docker engine.
pub(crate) struct Engine(Docker);

impl Engine {
    /// Speaks the newest version of the API that both sides know.
    ///
    /// # Errors
    /// No engine answers.
    pub(crate) async fn connect() -> anyhow::Result<Self> {
        let client = docker_client_instance().await?.negotiate_version().await;
        Ok(Self(client.context("no Docker engine answers: run `deploy/servers images`")?))
    }

    /// Runs a command inside a container and answers what it printed.
    ///
    /// # Errors
    /// It did not end with 0; what it printed is in the error.
    pub(crate) async fn exec(&self, container: &str, command: &[&str]) -> anyhow::Result<String> {
        let options = CreateExecOptions {
            cmd: Some(command.to_vec()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        let exec = self.0.create_exec(container, options).await?.id;
        let mut printed = String::new();
        if let StartExecResults::Attached { mut output, .. } = self.0.start_exec(&exec, None).await? {
            while let Some(part) = output.next().await {
                printed.push_str(&String::from_utf8_lossy(part?.as_ref()));
            }
        }
        // The streams may close a moment before the engine knows how it ended.
        loop {
            match self.0.inspect_exec(&exec).await?.exit_code {
                Some(0) => return Ok(printed),
                Some(code) => anyhow::bail!("{command:?} ended with {code}: {printed}"),
                None => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    }

    /// Ends a container's processes with SIGKILL.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) async fn kill(&self, container: &str) -> anyhow::Result<()> {
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        Ok(self.0.kill_container(container, Some(options)).await?)
    }

    /// The last lines that a container printed.
    pub(crate) async fn last_words(&self, container: &str) -> String {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail("20").build();
        let lines: Vec<_> = self.0.logs(container, Some(options)).collect().await;
        lines.into_iter().flatten().map(|line: LogOutput| line.to_string()).collect()
    }

    /// The running container with these labels (`name=value`), if there is one, and all its labels.
    ///
    /// # Errors
    /// The engine refused.
    pub(crate) async fn find(
        &self,
        labels: &[String],
    ) -> anyhow::Result<Option<(String, HashMap<String, String>)>> {
        let filters = HashMap::from([("label", labels.to_vec())]);
        let options = ListContainersOptionsBuilder::new().filters(&filters).build();
        let found = self.0.list_containers(Some(options)).await?.into_iter().next();
        Ok(found.and_then(|container| Some((container.id?, container.labels.unwrap_or_default()))))
    }

    /// Whether a container is there, running or not.
    ///
    /// # Errors
    /// The engine refused.
    #[cfg(test)]
    pub(crate) async fn exists(&self, container: &str) -> anyhow::Result<bool> {
        use testcontainers::bollard::errors::Error;
        match self.0.inspect_container(container, None).await {
            Ok(_) => Ok(true),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Makes testcontainers speak a version that the engine knows; a distribution's engine is older than the one version
/// that testcontainers asks for. To be called where one of its clients is alive and has asked nothing yet: the version
/// belongs to that client, and this is the same one.
pub(crate) fn agree_on_version() {
    let agree = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(Engine::connect()).ok()
    };
    // What starts a container tells better what is wrong with the engine.
    std::thread::scope(|scope| drop(scope.spawn(|| drop(agree())).join()));
}
