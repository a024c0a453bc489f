//! One node of the cluster: a process and where it listens.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use url::Url;

use super::watch::Watch;
use super::{Endpoints, Error, PARENT_PID, folder};

/// What a process of ours may know of the environment: all else would be settings that nobody chose for it.
const KEPT: [&str; 8] =
    ["PATH", "HOME", "TMPDIR", "LANG", "RUST_BACKTRACE", "RUST_LOG", "LOG_LEVEL", "LD_PRELOAD"];

/// How to start one node.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) number: usize,
    pub(super) program: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) log: PathBuf,
    pub(super) rest_port: u16,
    pub(super) raft_port: u16,
    pub(super) join: Vec<String>,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(&'static str, String)>,
}

/// One node of the cluster.
#[derive(Debug)]
pub struct Node {
    plan: Plan,
    child: Option<Child>,
    endpoints: Option<Endpoints>,
}

impl Node {
    /// Starts the process; it does not listen yet.
    pub(super) fn start(plan: Plan) -> Result<Self, Error> {
        let mut node = Self { plan, child: None, endpoints: None };
        node.spawn()?;
        Ok(node)
    }

    /// Starts the process again, where it was before.
    pub(super) fn spawn(&mut self) -> Result<(), Error> {
        let plan = &self.plan;
        std::fs::create_dir_all(&plan.folder).map_err(Error::folder(&plan.folder))?;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&plan.log)
            .map_err(Error::folder(&plan.log))?;
        let errors = log.try_clone().map_err(Error::folder(&plan.log))?;
        let mut command = Command::new(&plan.program);
        command
            .arg("serve")
            .arg("--data")
            .arg(&plan.folder)
            .arg("--rest")
            .arg(format!("127.0.0.1:{}", plan.rest_port))
            .arg("--raft")
            .arg(format!("127.0.0.1:{}", plan.raft_port))
            .args(plan.join.iter().flat_map(|peer| ["--join", peer]))
            .args(&plan.arguments)
            // So that no `message-hub.toml` of the place where we were started is read.
            .current_dir(&plan.folder)
            .env_clear()
            .envs(KEPT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))))
            .envs(plan.environment.iter().map(|(name, value)| (*name, value)))
            .env(PARENT_PID, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C is meant for us; we stop the nodes in good order.
            .process_group(0)
            .kill_on_drop(true);
        self.child = Some(command.spawn().map_err(|source| Error::Spawn { source })?);
        Ok(())
    }

    /// Waits until it says where it listens; from then on it keeps these ports.
    pub(super) async fn listening(&mut self, within: Duration) -> Result<(), Error> {
        let watch = Watch::on(&self.plan.folder).map_err(Error::folder(&self.plan.folder))?;
        let Some(child) = self.child.as_mut() else { return Ok(()) };
        let pid = child.id().unwrap_or(0);
        let heard = async {
            loop {
                if let Some(endpoints) = Endpoints::read(&self.plan.folder, pid) {
                    return Ok(endpoints);
                }
                tokio::select! {
                    changed = watch.changed() => changed.map_err(Error::folder(&self.plan.folder))?,
                    status = child.wait() => {
                        let status = status.map_err(|source| Error::Spawn { source })?;
                        let (number, log) = (self.plan.number, self.plan.log.clone());
                        return Err(Error::Ended { number, status, tail: folder::tail(&log, 15), log });
                    }
                }
            }
        };
        let endpoints = tokio::time::timeout(within, heard).await.unwrap_or_else(|_| {
            let last = format!("node {} does not listen", self.plan.number);
            Err(Error::Late { within, last, data: self.plan.folder.clone() })
        })?;
        self.plan.rest_port = endpoints.rest_url.port().unwrap_or(self.plan.rest_port);
        let raft_port = endpoints.raft_addr.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        self.plan.raft_port = raft_port.unwrap_or(self.plan.raft_port);
        self.endpoints = Some(endpoints);
        Ok(())
    }

    /// Joins by these addresses when it starts the next time.
    pub(super) fn set_join(&mut self, peers: Vec<String>) {
        self.plan.join = peers;
    }

    /// Counted from 1.
    #[must_use]
    pub const fn number(&self) -> usize {
        self.plan.number
    }

    /// Its process; `None` while it is down.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Where it listens, or listened before it went down.
    #[must_use]
    pub const fn endpoints(&self) -> Option<&Endpoints> {
        self.endpoints.as_ref()
    }

    /// Its ports: REST, and for other nodes; 0 before it listens, if they were not chosen.
    pub(super) const fn ports(&self) -> (u16, u16) {
        (self.plan.rest_port, self.plan.raft_port)
    }

    /// Base URL of its REST interface.
    #[must_use]
    pub fn url(&self) -> Option<&Url> {
        self.endpoints.as_ref().map(|endpoints| &endpoints.rest_url)
    }

    /// The program that it runs.
    #[must_use]
    pub fn program(&self) -> &std::path::Path {
        &self.plan.program
    }

    /// Its log file.
    #[must_use]
    pub fn log(&self) -> &std::path::Path {
        &self.plan.log
    }

    /// Its data folder.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        &self.plan.folder
    }

    /// Returns when its process has ended; never while it is down.
    pub(super) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        match self.child.as_mut() {
            Some(child) => {
                let status = child.wait().await;
                self.child = None;
                status
            }
            None => std::future::pending().await,
        }
    }

    /// Ends its process at once, as a power cut would, and waits until it is gone.
    pub(super) async fn kill(&mut self) -> std::io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.start_kill()?;
            child.wait().await?;
        }
        Ok(())
    }

    /// Asks its process to stop in good order.
    pub(super) fn terminate(&self) {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended meanwhile, which is what is wanted.
            let _unless_gone = rustix::process::kill_process(pid, Signal::TERM);
        }
    }

    /// Waits for its end; makes one when the time is over.
    pub(super) async fn gone(&mut self, within: Duration) -> std::io::Result<()> {
        if let Some(child) = self.child.as_mut()
            && tokio::time::timeout(within, child.wait()).await.is_err()
        {
            child.start_kill()?;
            child.wait().await?;
        }
        self.child = None;
        Ok(())
    }
}
