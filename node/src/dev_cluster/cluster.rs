//! The nodes together: forming, readiness, deaths, restarts, the end.

use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use futures::future::select_all;
use hub_core::access::Scope;
use hub_core::id::ServiceName;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::folder::Folder;
use super::node::Plan;
use super::{Error, Node, Options};
use crate::cli::cluster_status::ClusterView;
use crate::cli::token::Claims;
use crate::client::{self, Call, Client, source};

/// How long a node may take to stop in good order.
const STOP: Duration = Duration::from_secs(10);
/// Between two looks at a cluster that forms.
const LOOK: Duration = Duration::from_millis(20);
/// Tokens of a cluster on this machine outlive any trial.
const TOKEN_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// A running cluster on this machine.
#[derive(Debug)]
pub struct DevCluster {
    nodes: Vec<Node>,
    /// Their numbers in the cluster.
    ids: Vec<u64>,
    key: SecretString,
    auth: bool,
    // Last, so that the nodes are gone before their folder goes.
    folder: Folder,
}

impl DevCluster {
    /// Starts the nodes, lets them form a cluster, and waits until all vote and answer. To be called on the main thread
    /// only: the kernel ends the nodes when the thread that started them ends.
    ///
    /// # Errors
    /// When a node does not start or the cluster does not form in time.
    pub async fn start(options: &Options) -> Result<Self, Error> {
        let folder = Folder::open(options.data.as_deref(), options.nodes)?;
        let ports = ports(options, &folder)?;
        let key = folder.key()?;
        let mut cluster = Self { nodes: Vec::new(), ids: Vec::new(), key, auth: options.auth, folder };
        let deadline = source::instant() + options.ready_within;
        for (number, (rest_port, raft_port)) in (1..).zip(ports) {
            let plan = cluster.plan(options, number, rest_port, raft_port);
            cluster.nodes.push(Node::start(plan)?);
            // The others need to know where the first listens.
            if number == 1 {
                cluster.listening(1, deadline).await?;
            }
        }
        for number in 2..=options.nodes {
            cluster.listening(number, deadline).await?;
        }
        let taken: Vec<_> = cluster.nodes.iter().map(Node::ports).collect();
        cluster.folder.keep_ports(&taken)?;
        let addresses: Vec<String> =
            cluster.nodes.iter().filter_map(|node| Some(node.endpoints()?.raft_addr.clone())).collect();
        for node in &mut cluster.nodes {
            let own = node.endpoints().map(|endpoints| endpoints.raft_addr.clone());
            node.set_join(
                addresses.iter().filter(|address| Some(*address) != own.as_ref()).cloned().collect(),
            );
        }
        cluster.ready(deadline, options.ready_within).await?;
        Ok(cluster)
    }

    fn plan(&self, options: &Options, number: usize, rest_port: u16, raft_port: u16) -> Plan {
        let first = self.nodes.first().and_then(Node::endpoints).map(|endpoints| endpoints.raft_addr.clone());
        let mut arguments: Vec<String> =
            ["--log-format", "text", "--set", "node.drain_delay=0s", "--set", "node.drain_limit=2s"]
                .map(str::to_owned)
                .to_vec();
        if options.nodes == 2 {
            arguments.push("--two-nodes".to_owned());
        }
        if !options.auth {
            arguments.push("--no-auth".to_owned());
        }
        if let Some(profile) = &options.profile {
            arguments.extend(["--raft-profile".to_owned(), profile.clone()]);
        }
        arguments.extend(options.settings.iter().flat_map(|setting| ["--set".to_owned(), setting.clone()]));
        let key = self.key.expose_secret().to_owned();
        // Loopback too: the demo's and the trials' receivers are here.
        let targets = "0.0.0.0/0,::/0,127.0.0.0/8,::1/128".to_owned();
        let servers = options.servers.iter().map(|(name, url)| (*name, url.expose_secret().to_owned()));
        let own = [("SECRET_KEY", key), ("ALLOWED_TARGETS", targets)];
        Plan {
            number,
            program: options.program.clone(),
            folder: self.folder.node(number),
            log: self.folder.log(number),
            rest_port,
            raft_port,
            join: first.into_iter().collect(),
            arguments,
            environment: own.into_iter().chain(servers).collect(),
        }
    }

    async fn listening(&mut self, number: usize, deadline: Instant) -> Result<(), Error> {
        let left = deadline.saturating_duration_since(source::instant());
        match self.nodes.get_mut(number.saturating_sub(1)) {
            Some(node) => node.listening(left).await,
            None => Ok(()),
        }
    }

    async fn ready(&mut self, deadline: Instant, within: Duration) -> Result<(), Error> {
        let client = self.client()?;
        let urls = self.urls();
        loop {
            let missing = match complete(&client, &urls).await {
                Ok(Ok(ids)) => {
                    self.ids = ids;
                    return Ok(());
                }
                Ok(Err(missing)) => missing,
                Err(error) => error.to_string(),
            };
            if source::instant() >= deadline {
                return Err(Error::Late { within, last: missing, data: self.path().to_owned() });
            }
            tokio::select! {
                (index, status) = died(&mut self.nodes) => return Err(self.ended(index, status)),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn ended(&self, index: usize, status: ExitStatus) -> Error {
        let log = self.folder.log(index + 1);
        Error::Ended { number: index + 1, status, tail: super::folder::tail(&log, 15), log }
    }

    /// The nodes, the first one first.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The position of the node with this number in the cluster.
    #[must_use]
    pub fn position(&self, node_id: u64) -> Option<usize> {
        self.ids.iter().position(|id| *id == node_id)
    }

    /// The REST addresses of all nodes.
    #[must_use]
    pub fn urls(&self) -> Vec<Url> {
        self.nodes.iter().filter_map(Node::url).cloned().collect()
    }

    /// The folder of all nodes and logs.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The folder goes with the cluster.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        self.folder.is_temporary()
    }

    /// A token for `service` with all scopes; `None` if calls need none.
    ///
    /// # Errors
    /// When signing fails.
    pub fn token(&self, service: &ServiceName) -> Result<Option<SecretString>, Error> {
        if !self.auth {
            return Ok(None);
        }
        let claims = Claims::new(service, &Scope::ALL, TOKEN_TTL);
        claims.sign(&self.key).map(Some).map_err(|failure| Error::Key(failure.to_string()))
    }

    /// A client with all rights that asks every node in turn.
    ///
    /// # Errors
    /// When no token can be made.
    pub fn client(&self) -> Result<Client, Error> {
        let operator = "operator".parse().map_err(|error| Error::Key(format!("{error}")))?;
        let token = self.token(&operator)?;
        Ok(client::Options { urls: self.urls(), token, timeout: Duration::from_secs(10) }.build()?)
    }

    /// The number in the cluster of the node at this position.
    #[must_use]
    pub fn node_id(&self, position: usize) -> Option<u64> {
        self.ids.get(position).copied()
    }

    /// Waits until every node votes in every group, knows their leaders, and takes traffic.
    ///
    /// # Errors
    /// When that takes longer than `within`, or a node ends.
    pub async fn wait_ready(&mut self, within: Duration) -> Result<(), Error> {
        self.ready(source::instant() + within, within).await
    }

    /// Returns when a node's process has ended by itself: its position, and how it ended.
    pub async fn died(&mut self) -> (usize, ExitStatus) {
        died(&mut self.nodes).await
    }

    /// Starts a node again that is down.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn restart(&mut self, index: usize) -> Result<(), Error> {
        match self.nodes.get_mut(index) {
            Some(node) if node.pid().is_none() => node.spawn(),
            _ => Ok(()),
        }
    }

    /// Ends a node's process as a power cut would.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn kill(&mut self, index: usize) -> Result<(), Error> {
        match self.nodes.get_mut(index) {
            Some(node) => node.kill().await.map_err(|source| Error::Spawn { source }),
            None => Ok(()),
        }
    }

    /// Stops all nodes in good order, then removes the folder if it is temporary.
    ///
    /// # Errors
    /// When the folder cannot be removed.
    pub async fn stop(mut self) -> Result<(), Error> {
        for node in &self.nodes {
            node.terminate();
        }
        for node in &mut self.nodes {
            node.gone(STOP).await.map_err(|source| Error::Spawn { source })?;
        }
        self.folder.close()
    }
}

/// The ports of each node: REST, and for other nodes.
fn ports(options: &Options, folder: &Folder) -> Result<Vec<(u16, u16)>, Error> {
    let pairs = chosen(options, folder)?;
    for port in pairs.iter().flat_map(|(rest, raft)| [*rest, *raft]) {
        if port > 0 && std::net::TcpListener::bind(("127.0.0.1", port)).is_err() {
            return Err(Error::Port { port });
        }
    }
    Ok(pairs)
}

/// Nodes that ran before must be found where the others know them.
fn chosen(options: &Options, folder: &Folder) -> Result<Vec<(u16, u16)>, Error> {
    let (mut pairs, before) = (wanted(options)?, folder.ports());
    if options.nodes > 1 {
        for (pair, old) in pairs.iter_mut().zip(before) {
            if options.base_port == 0 {
                *pair = old;
            } else if *pair != old {
                return Err(Error::Moved { path: folder.path().to_owned() });
            }
        }
    }
    Ok(pairs)
}

/// The ports that were asked for.
fn wanted(options: &Options) -> Result<Vec<(u16, u16)>, Error> {
    let base = options.base_port;
    if base == 0 {
        return Ok(vec![(0, 0); options.nodes]);
    }
    let count = u16::try_from(options.nodes).unwrap_or(u16::MAX);
    let pairs: Option<Vec<(u16, u16)>> =
        (0..count).map(|i| Some((base.checked_add(i)?, base.checked_add(i)?.checked_add(100)?))).collect();
    pairs.ok_or(Error::PortRange { base })
}

async fn died(nodes: &mut [Node]) -> (usize, ExitStatus) {
    if nodes.is_empty() {
        return std::future::pending().await;
    }
    loop {
        let (ended, index, _) = select_all(nodes.iter_mut().map(|node| Box::pin(node.ended()))).await;
        if let Ok(status) = ended {
            return (index, status);
        }
    }
}

/// The numbers of the nodes once all is well; else what is still missing.
async fn complete(client: &Client, urls: &[Url]) -> Result<Result<Vec<u64>, String>, client::Error> {
    let mut ids = Vec::with_capacity(urls.len());
    for url in urls {
        let node = client.only(url.clone()).within(Duration::from_secs(2));
        let view: ClusterView = node.send(Call::get("/api/v1/cluster")).await?.json()?;
        for (name, group) in &view.groups {
            if group.leader.is_none() {
                return Ok(Err(format!("{url}: group {name} has no leader")));
            }
            if group.voters.len() < urls.len() {
                return Ok(Err(format!(
                    "{url}: {} of {} nodes vote in {name}",
                    group.voters.len(),
                    urls.len()
                )));
            }
        }
        node.send(Call::get("/readyz")).await?;
        ids.push(view.node_id);
    }
    Ok(Ok(ids))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_the_base() {
        let mut options = Options::new("x".into(), 3);
        let folder = Folder::open(None, 3).unwrap();
        assert_eq!(ports(&options, &folder).unwrap(), [(0, 0); 3]);
        options.base_port = 65_500;
        assert!(matches!(ports(&options, &folder), Err(Error::PortRange { .. })));
        let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        options.base_port = port;
        // A port near the end of the range is refused for that reason instead.
        assert!(matches!(ports(&options, &folder), Err(Error::Port { .. } | Error::PortRange { .. })));
    }

    #[test]
    fn nodes_come_back_to_the_ports_that_the_others_know() {
        let mut options = Options::new("x".into(), 3);
        let folder = Folder::open(None, 3).unwrap();
        folder.keep_ports(&[(5, 6), (7, 8)]).unwrap();
        assert_eq!(chosen(&options, &folder).unwrap(), [(5, 6), (7, 8), (0, 0)]);
        options.base_port = 20_000;
        let error = chosen(&options, &folder).unwrap_err();
        assert!(error.to_string().contains("--port 0"), "{error}");
    }

    /// A node that is no hub at all: says why it ended, with the end of its log.
    #[tokio::test]
    async fn a_node_that_ends_at_once_is_told() {
        let place = tempfile::tempdir().unwrap();
        let program = place.path().join("node");
        std::fs::write(&program, "#!/bin/sh\necho 'port is taken' >&2\nexit 7\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let error = DevCluster::start(&Options::new(program, 3)).await.unwrap_err();
        assert!(error.to_string().contains("port is taken"), "{error}");
    }
}
