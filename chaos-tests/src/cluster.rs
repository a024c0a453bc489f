//! A cluster of real processes.

use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::json;

use crate::client::Client;
use crate::folder::Folder;
use crate::node::Node;
use crate::{shim, wait};

/// Until a started or changed cluster is whole again.
pub const READY: Duration = Duration::from_secs(90);

/// `GET /api/v1/cluster`, as far as tests read it.
#[derive(Clone, Debug, Deserialize)]
pub struct View {
    /// The node that answered.
    pub node_id: u64,
    /// Its groups.
    pub groups: Groups,
    /// All nodes.
    pub nodes: Vec<Member>,
}

/// The groups of a node.
#[derive(Clone, Debug, Deserialize)]
pub struct Groups {
    /// Members and services.
    pub control: Group,
    /// The message store, unless a database keeps the messages.
    messages: Option<Group>,
}

impl Groups {
    /// The message store.
    ///
    /// # Errors
    /// A database keeps the messages.
    pub fn messages(&self) -> anyhow::Result<&Group> {
        self.messages.as_ref().context("a database keeps the messages")
    }

    fn all(&self) -> impl Iterator<Item = &Group> {
        std::iter::once(&self.control).chain(&self.messages)
    }
}

/// A group, as the node that answered knows it.
#[derive(Clone, Debug, Deserialize)]
pub struct Group {
    /// Who leads, if known.
    pub leader: Option<u64>,
    /// End of the log.
    pub last_log_index: u64,
    /// How far the node has applied.
    pub applied_index: u64,
    /// How far its log was cut off.
    pub purged_index: u64,
    /// Its last snapshot or checkpoint.
    pub snapshot_index: u64,
    /// Who votes.
    pub voters: Vec<u64>,
}

/// A node of the cluster.
#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Base URL of its REST interface.
    pub rest_url: String,
}

/// Nodes that form a cluster, and a client that may do everything.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes, by number.
    pub nodes: Vec<Node>,
    /// Speaks as the service `sender`.
    pub client: Client,
}

impl Cluster {
    /// Starts so many nodes as one cluster and waits until all of them vote in all groups.
    ///
    /// # Errors
    /// It does not form.
    pub async fn start(folder: &Folder, nodes: usize, settings: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(folder, nodes, settings, &[]).await
    }

    /// The same, with more in the environment of each node.
    ///
    /// # Errors
    /// It does not form.
    pub async fn start_with(
        folder: &Folder,
        nodes: usize,
        settings: &[&str],
        environment: &[(&'static str, String)],
    ) -> anyhow::Result<Self> {
        let library = shim::compile(folder.path())?;
        let made = (1..=nodes).map(|number| {
            let mut node = Node::new(number, &library, folder.path(), settings)?;
            environment.iter().for_each(|(name, value)| node.set(name, value));
            anyhow::Ok(node)
        });
        let mut cluster = Self { nodes: made.collect::<Result<_, _>>()?, client: Client::new("sender")? };
        cluster.nodes.first_mut().context("a cluster has nodes")?.start(&[]).await?;
        let first = cluster.nodes.first().context("a cluster has nodes")?.raft_addr()?.to_owned();
        for node in cluster.nodes.iter_mut().skip(1) {
            node.start(&["--join", &first]).await?;
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Base URLs of all nodes.
    ///
    /// # Errors
    /// One never listened.
    pub fn urls(&self) -> anyhow::Result<Vec<String>> {
        self.nodes.iter().map(|node| Ok(node.url()?.trim_end_matches('/').to_owned())).collect()
    }

    /// What this node says of the cluster.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn view(&self, node: usize) -> anyhow::Result<View> {
        let url = self.nodes.get(node).context("no such node")?.url()?.trim_end_matches('/');
        let answer = self.client.get(&format!("{url}/api/v1/cluster")).await?.success()?;
        Ok(serde_json::from_value(answer.body)?)
    }

    /// Waits until every node is ready and all of them vote in all groups, under leaders that all agree on.
    ///
    /// # Errors
    /// Not in time.
    pub async fn ready(&self) -> anyhow::Result<()> {
        wait::until("the cluster is whole", READY, async || {
            let mut leaders = Vec::new();
            for (index, url) in self.urls()?.iter().enumerate() {
                self.client.get(&format!("{url}/readyz")).await?.success()?;
                let view = self.view(index).await?;
                let whole = view.groups.all().all(|group| group.voters.len() == self.nodes.len());
                anyhow::ensure!(whole, "{view:?}");
                leaders.push(view.groups.all().map(|group| group.leader).collect::<Vec<_>>());
            }
            leaders.dedup();
            let agreed = matches!(leaders.as_slice(), [led] if led.iter().all(Option::is_some));
            anyhow::ensure!(agreed, "leaders: {leaders:?}");
            Ok(Some(()))
        })
        .await
    }

    /// The place in `nodes` of the leader of `messages`, as a majority of the nodes say. Nodes that do not answer are not
    /// waited for.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn messages_leader(&self) -> anyhow::Result<usize> {
        wait::until("a leader of messages is known", READY, async || {
            let looks = (0..self.nodes.len())
                .map(|index| tokio::time::timeout(Duration::from_secs(2), self.view(index)));
            let mut views: FuturesUnordered<_> = looks.collect();
            let mut named: Vec<String> = Vec::new();
            while let Some(view) = views.next().await {
                let Ok(Ok(view)) = view else { continue };
                let leader = view.groups.messages()?.leader;
                let leader = view.nodes.into_iter().find(|node| Some(node.id) == leader);
                let Some(url) = leader.map(|node| node.rest_url) else { continue };
                named.push(url.trim_end_matches('/').to_owned());
                let chosen = named.last();
                if named.iter().filter(|other| Some(*other) == chosen).count() > self.nodes.len() / 2 {
                    return Ok(self.urls()?.iter().position(|url| Some(url) == chosen));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Kills a node and waits until it is dead.
    ///
    /// # Errors
    /// It did not run.
    pub async fn kill(&mut self, node: usize) -> anyhow::Result<()> {
        self.nodes.get_mut(node).context("no such node")?.kill().await
    }

    /// Starts a node again, where it was, and waits until it listens.
    ///
    /// # Errors
    /// It ended instead.
    pub async fn restart(&mut self, node: usize) -> anyhow::Result<()> {
        self.nodes.get_mut(node).context("no such node")?.start(&[]).await
    }

    /// Kills all nodes at the same moment.
    ///
    /// # Errors
    /// One did not run.
    pub async fn kill_all(&mut self) -> anyhow::Result<()> {
        for node in &self.nodes {
            node.signal(rustix::process::Signal::KILL)?;
        }
        for node in &mut self.nodes {
            node.died().await?;
        }
        Ok(())
    }

    /// Starts all nodes again and waits until the cluster is whole.
    ///
    /// # Errors
    /// It is not in time.
    pub async fn restart_all(&mut self) -> anyhow::Result<()> {
        // A node that waits for the others may not listen before they do: launch all, then look.
        for node in &mut self.nodes {
            node.launch(&[])?;
        }
        for node in &mut self.nodes {
            node.listening().await?;
        }
        self.ready().await
    }

    /// Registers a service with one instance, with short deadlines so that a lost claim comes round soon.
    ///
    /// # Errors
    /// It is refused.
    pub async fn register(&self, name: &str, url: &str) -> anyhow::Result<()> {
        let body = json!({
            "name": name,
            "instances": [{ "url": url }],
            "delivery": { "mode": "push", "timeout_ms": 2000, "max_concurrency": 64 },
            "retry": { "base_ms": 1_000, "cap_ms": 2_000, "max_retries": 100 },
            "health_check": { "kind": "none" },
        });
        let first = self.urls()?.into_iter().next().context("a cluster has nodes")?;
        self.client.post(&format!("{first}/api/v1/services/register"), &body).await?.success()?;
        Ok(())
    }
}
