//! One node: a real process of `message-hub serve` with a disk of its own.

use std::fs::{self, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde::Deserialize;
use tokio::process::{Child, Command};

use crate::client::SECRET_KEY;
use crate::shim::Disk;
use crate::{program, wait};

/// Until a started process says where it listens.
const START: Duration = Duration::from_secs(60);

/// What a node writes into its data folder once it listens.
#[derive(Clone, Debug, Deserialize)]
pub struct Endpoints {
    /// Its process.
    pub pid: u32,
    /// Base URL of its REST interface.
    pub rest_url: String,
    /// `host:port` for other nodes.
    pub raft_addr: String,
}

/// A node, running or not.
#[derive(Debug)]
pub struct Node {
    number: usize,
    disk: Disk,
    log: PathBuf,
    child: Option<Child>,
    endpoints: Option<Endpoints>,
    settings: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Node {
    /// A node that was never started. `number` (from 1) names it in logs; `settings` are `section.key=value`.
    ///
    /// # Errors
    /// Its folders cannot be made.
    pub fn new(number: usize, library: &Path, folder: &Path, settings: &[&str]) -> anyhow::Result<Self> {
        let home = folder.join(format!("node-{number}"));
        let disk = Disk::new(library, &home)?;
        // As an installer would have made it, long ago.
        fs::create_dir_all(disk.root().join("data"))?;
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let log = home.join("node.log");
        Ok(Self { number, disk, log, child: None, endpoints: None, settings, environment: Vec::new() })
    }

    /// Gives its next processes a variable of the environment.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value.to_owned()));
    }

    /// Its number, from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.disk.root().join("data")
    }

    /// All that its processes printed so far.
    ///
    /// # Errors
    /// It was never started.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Base URL of its REST interface; it stays the same for all its processes.
    ///
    /// # Errors
    /// It never listened.
    pub fn url(&self) -> anyhow::Result<&str> {
        Ok(&self.endpoints.as_ref().context("the node never listened")?.rest_url)
    }

    /// Where other nodes reach it.
    ///
    /// # Errors
    /// It never listened.
    pub fn raft_addr(&self) -> anyhow::Result<&str> {
        Ok(&self.endpoints.as_ref().context("the node never listened")?.raft_addr)
    }

    /// Starts a process; it does not listen yet. A node that ran before takes its old ports.
    ///
    /// # Errors
    /// The process does not start.
    pub fn launch(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        anyhow::ensure!(self.child.is_none(), "node {} runs already", self.number);
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        // An address of its own, so that no outgoing connection takes its port while it is down.
        let address = format!("127.0.0.{}", 10 + self.number);
        let port =
            |from: Option<&str>| from.and_then(|addr| addr.rsplit(':').next()).unwrap_or("0").to_owned();
        let rest = port(self.endpoints.as_ref().map(|own| own.rest_url.trim_end_matches('/')));
        let raft = port(self.endpoints.as_ref().map(|own| own.raft_addr.as_str()));
        let mut command = Command::new(program::message_hub()?);
        command
            .arg("serve")
            .arg("--data")
            .arg(self.data())
            .args(["--rest", &format!("{address}:{rest}"), "--raft", &format!("{address}:{raft}")])
            .args(self.settings.iter().flat_map(|setting| ["--set", setting]))
            .args(arguments)
            .current_dir(self.disk.root())
            .env_clear()
            .env("SECRET_KEY", SECRET_KEY)
            .env("ALLOWED_TARGETS", "127.0.0.0/8")
            .env("RUST_BACKTRACE", "1")
            .envs(self.disk.environment())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        self.child = Some(command.spawn()?);
        Ok(())
    }

    /// Starts a process and waits until it listens.
    ///
    /// # Errors
    /// It ended instead, or is late.
    pub async fn start(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        self.launch(arguments)?;
        self.listening().await
    }

    /// Waits until the launched process listens.
    ///
    /// # Errors
    /// It ended instead, or is late.
    pub async fn listening(&mut self) -> anyhow::Result<()> {
        let file = self.data().join("endpoints.json");
        let what = format!("node {} listens", self.number);
        let (child, number) = (self.child.as_mut().context("launched")?, self.number);
        let endpoints = wait::until(&what, START, async || {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(Err(anyhow::anyhow!("node {number} ended: {status}"))));
            }
            let found: Endpoints = serde_json::from_slice(&fs::read(&file)?)?;
            Ok((Some(found.pid) == child.id()).then_some(Ok(found)))
        });
        self.endpoints = Some(endpoints.await??);
        Ok(())
    }

    /// SIGKILL, and proof that the process died of it.
    ///
    /// # Errors
    /// It did not run, or ended otherwise.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.died().await
    }

    /// Sends a signal, without waiting for what it does.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let pid = self.child.as_ref().and_then(Child::id).context("the node does not run")?;
        Pid::from_raw(pid.try_into()?).context("a process has a number")
    }

    /// SIGSTOP, and proof that all of the process stands still.
    ///
    /// # Errors
    /// It does not run.
    pub async fn freeze(&self) -> anyhow::Result<()> {
        let (pid, options) = (self.pid()?, WaitIdOptions::STOPPED | WaitIdOptions::NOHANG);
        self.signal(Signal::STOP)?;
        wait::until("the process stands still", Duration::from_secs(30), async || {
            Ok(waitid(WaitId::Pid(pid), options)?.map(drop))
        })
        .await
    }

    /// SIGCONT: it goes on.
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits until a SIGKILL that was sent has worked.
    ///
    /// # Errors
    /// The process ended otherwise.
    pub async fn died(&mut self) -> anyhow::Result<()> {
        let status = self.ended(Duration::from_secs(30)).await?;
        anyhow::ensure!(
            status.signal() == Some(9),
            "node {} ended with {status}, not by SIGKILL",
            self.number
        );
        Ok(())
    }

    /// Waits until the process ends by itself.
    ///
    /// # Errors
    /// It did not end within `limit`, or does not run.
    pub async fn ended(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let child = self.child.as_mut().context("the node does not run")?;
        let what = || format!("node {} still runs after {limit:?}", self.number);
        let status = tokio::time::timeout(limit, child.wait()).await.with_context(what)??;
        self.child = None;
        Ok(status)
    }

    /// SIGTERM, and waits until it has left in good order.
    ///
    /// # Errors
    /// It did not, or not with success.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.ended(Duration::from_secs(60)).await?;
        anyhow::ensure!(status.success(), "node {} left with {status}", self.number);
        Ok(())
    }

    /// Whether a process of it runs.
    ///
    /// # Errors
    /// The system refuses to tell.
    pub fn runs(&mut self) -> anyhow::Result<bool> {
        Ok(match self.child.as_mut() {
            Some(child) => child.try_wait()?.is_none(),
            None => false,
        })
    }
}
