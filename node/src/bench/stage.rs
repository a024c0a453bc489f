//! Everything around a measurement: the nodes, the receiver, the ledger, the registered targets.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use hub_core::id::ServiceName;
use secrecy::SecretString;
use serde_json::json;
use url::Url;

use super::usage::Usage;
use super::{Connection, Error, FileSystem, NodeUsage, Origin, Receiver, SharedLedger, TempPlace};
use crate::cli::cluster_status::ClusterView;
use crate::client::{self, Call, Client, segment};
use crate::dev_cluster::{self, DevCluster};

/// Who sends the measured messages.
pub(super) const SENDER: &str = "bench";

/// What is measured, and from where.
#[derive(Clone, Debug)]
pub struct StageOptions {
    /// A cluster that runs already; one of our own is started if there is none.
    pub urls: Vec<Url>,
    /// Token for that cluster, with all scopes.
    pub token: Option<SecretString>,
    /// The binary of our own nodes.
    pub program: PathBuf,
    /// How many of our own nodes.
    pub nodes: usize,
    /// Where the data of our own nodes lies; the system's temporary folder if `None`.
    pub data: Option<PathBuf>,
    /// Heartbeat and election times of our own nodes.
    pub profile: Option<String>,
    /// Further settings of our own nodes.
    pub settings: Vec<String>,
    /// The servers that our own nodes use.
    pub servers: Vec<(&'static str, SecretString)>,
    /// Address of this machine under which the nodes reach the receiver.
    pub receiver: IpAddr,
    /// Messages go to so many services in turn.
    pub targets: usize,
    /// Deliveries on; off, the services are paused.
    pub deliver: bool,
}

/// Everything around a measurement.
#[derive(Debug)]
pub struct Stage {
    /// Our own cluster, if it is one.
    pub cluster: Option<DevCluster>,
    /// Asks any node, with all rights.
    pub client: Client,
    /// Every id.
    pub ledger: Arc<SharedLedger>,
    /// The services that get messages.
    pub targets: Vec<String>,
    /// Where our own nodes' data lies.
    pub file_system: Option<FileSystem>,
    receiver: Receiver,
    urls: Vec<Url>,
    token: Option<SecretString>,
    // Last, so that the nodes are gone before their folder goes.
    place: Option<TempPlace>,
}

impl Stage {
    /// Starts or finds the nodes, starts the receiver, registers the targets.
    ///
    /// # Errors
    /// When any of that fails.
    pub async fn build(options: &StageOptions) -> Result<Self, Error> {
        let ledger = Arc::new(SharedLedger::new()?);
        let receiver = Receiver::start(options.receiver, Arc::clone(&ledger)).await?;
        let sender: ServiceName =
            SENDER.parse().map_err(|error| Error::Usage(format!("{SENDER} {error}")))?;
        let targets = (0..options.targets).map(|number| format!("bench-{number}")).collect();
        let stage = if options.urls.is_empty() {
            let place = TempPlace::new(options.data.as_deref())?;
            let mut own = dev_cluster::Options::new(options.program.clone(), options.nodes);
            own.data = Some(place.path().to_owned());
            own.profile.clone_from(&options.profile);
            // A bound that ends the measurement early measures nothing.
            own.settings = vec!["messages.backlog_limit=1000000000".to_owned()];
            own.settings.extend(options.settings.iter().cloned());
            own.servers.clone_from(&options.servers);
            let cluster = DevCluster::start(&own).await?;
            Self {
                client: cluster.client()?,
                urls: cluster.urls(),
                token: cluster.token(&sender)?,
                cluster: Some(cluster),
                file_system: Some(place.file_system.clone()),
                place: Some(place),
                ledger,
                receiver,
                targets,
            }
        } else {
            let timeout = std::time::Duration::from_secs(10);
            let (urls, token) = (options.urls.clone(), options.token.clone());
            let client = client::Options { urls: urls.clone(), token: token.clone(), timeout }.build()?;
            Self {
                cluster: None,
                client,
                ledger,
                targets,
                file_system: None,
                receiver,
                urls,
                token,
                place: None,
            }
        };
        let url = stage.receiver.url()?;
        for target in &stage.targets {
            stage.register(target, &url).await?;
        }
        stage.deliver(options.deliver).await?;
        Ok(stage)
    }

    /// Registers a service of this name at `url`.
    ///
    /// # Errors
    /// When the hub refuses.
    pub(super) async fn register(&self, name: &str, url: &Url) -> Result<(), Error> {
        let body = json!({
            "name": name,
            "instances": [{ "id": "receiver", "url": url.as_str().trim_end_matches('/') }],
            "delivery": { "max_concurrency": 200 },
            "health_check": { "kind": "none" },
        });
        self.client.send(Call::post("/api/v1/services/register").json(body.to_string())).await?;
        Ok(())
    }

    /// Lets the services take messages, or pauses them.
    ///
    /// # Errors
    /// When the hub refuses.
    pub(super) async fn deliver(&self, deliver: bool) -> Result<(), Error> {
        let state = if deliver { "resume" } else { "pause" };
        for target in &self.targets {
            self.client.send(Call::put(format!("/api/v1/services/{}/{state}", segment(target)))).await?;
        }
        Ok(())
    }

    /// Our own cluster.
    ///
    /// # Errors
    /// When it is somebody else's, whose nodes nobody shall kill.
    pub fn own(&mut self) -> Result<&mut DevCluster, Error> {
        self.cluster
            .as_mut()
            .ok_or_else(|| Error::Usage("this needs nodes of its own: leave --url out".to_owned()))
    }

    /// How many nodes are asked.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.urls.len()
    }

    /// The receiver's address.
    ///
    /// # Errors
    /// Never with an address of this machine.
    pub fn receiver_url(&self) -> Result<Url, Error> {
        self.receiver.url()
    }

    /// Connections to the nodes in turn, not connected yet.
    ///
    /// # Errors
    /// When an address is not plain http.
    pub fn connections(&self, count: usize) -> Result<Vec<Connection>, Error> {
        let urls = self.urls.iter().cycle().take(count);
        urls.map(|url| Ok(Connection::new(Origin::new(url, self.token.as_ref())?))).collect()
    }

    /// One more connection to the node at this position.
    ///
    /// # Errors
    /// When its address is not plain http.
    pub fn connection(&self, position: usize) -> Result<Connection, Error> {
        let url =
            self.urls.get(position).ok_or_else(|| Error::Usage(format!("there is no node {position}")))?;
        Ok(Connection::new(Origin::new(url, self.token.as_ref())?))
    }

    /// What each of our own nodes used so far.
    pub(super) fn usage(&self) -> Vec<Usage> {
        let nodes = self.cluster.as_ref().map(DevCluster::nodes).unwrap_or_default();
        nodes.iter().map(|node| node.pid().and_then(Usage::of).unwrap_or_default()).collect()
    }

    /// What each of our own nodes used since `before`.
    pub(super) async fn used_since(&self, before: &[Usage]) -> Vec<NodeUsage> {
        let view = self.view().await.ok();
        let used = |(position, (before, now)): (usize, (&Usage, Usage))| {
            let id = self.cluster.as_ref().and_then(|cluster| cluster.node_id(position));
            let leads = view
                .iter()
                .flat_map(|view| &view.groups)
                .filter(|(_, group)| id.is_some() && group.leader == id);
            NodeUsage {
                node: position + 1,
                leads: leads.map(|(name, _)| name.clone()).collect(),
                cpu_s: (now.cpu_s - before.cpu_s).max(0.0),
                rss_bytes: now.rss_bytes,
                written_bytes: now.written_bytes.saturating_sub(before.written_bytes),
            }
        };
        before.iter().zip(self.usage()).enumerate().map(used).collect()
    }

    /// The cluster as one of its nodes sees it.
    ///
    /// # Errors
    /// When no node answers.
    pub(crate) async fn view(&self) -> Result<ClusterView, Error> {
        Ok(self.client.send(Call::get("/api/v1/cluster")).await?.json()?)
    }

    /// Stops our own nodes and removes their data.
    ///
    /// # Errors
    /// When a node cannot be stopped.
    pub async fn close(self) -> Result<(), Error> {
        let Self { cluster, place, .. } = self;
        if let Some(cluster) = cluster {
            cluster.stop().await?;
        }
        drop(place);
        Ok(())
    }
}
