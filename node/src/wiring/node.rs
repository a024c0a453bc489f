//! A node: everything between its start and its end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hub_api::Leaving;
use hub_core::error::code;
use hub_core::id::NodeId;
use hub_core::port::{Clock, ClusterControl, Group, Replicator, StateMachine};
use hub_core::time::{Sample, Timestamp};
use hub_raft::{KeeperOptions, Peers, Transport};
use tracing::info;

use super::address::{self, Bound, Place};
use super::admission::{Admission, Nodes};
use super::base::{Base, metrics};
use super::cache::Cache;
use super::drain::{self, Live};
use super::groups::{self, Groups, Steering};
use super::targets::Targets;
use super::{access, api, cache, delivery, recovery};
use crate::clock::{HubClock, PeerClocks, Sampler, SamplerMetrics};
use crate::coded::CodedError;
use crate::config::Config;
use crate::control_port::{self, ControlPort, Led, LedGroups, Parts, follow, hand_over};
use crate::identity::{DataFolder, Endpoints, Identity};
use crate::lifecycle::{Failure, OnCancel, OnError, Stage, TaskKind, Tasks};
use crate::store_kind::StoreKind;

/// How long the others may take to say what their clocks show, at the start.
const WALLS: Duration = Duration::from_secs(1);
/// How long what runs may take to end after a failure: most of it waits for what failed.
const FAILED: Duration = Duration::from_secs(1);
/// What is kept for the end after everything else had its time.
const LAST: Duration = Duration::from_secs(2);

const fn kind(name: &'static str) -> TaskKind {
    TaskKind { name, stage: Stage::Base, on_error: OnError::StopNode, on_cancel: OnCancel::Drop }
}

/// A running node.
pub struct Node {
    base: Base,
    folder: DataFolder,
    endpoints: Endpoints,
    transport: Transport,
    groups: Groups,
    steered: LedGroups,
    cluster: Arc<ControlPort>,
    live: Live,
    leaving: Leaving,
}

impl Node {
    /// Starts a node on this machine's clocks.
    ///
    /// # Errors
    /// As [`Self::start_with`].
    pub async fn start(config: Config, rejoin: bool) -> Result<Self, CodedError> {
        Self::start_with(HubClock::default(), config, rejoin).await
    }

    /// Starts a node; when this returns it answers requests, and `/readyz` says when it takes traffic.
    ///
    /// # Errors
    /// Why it cannot start, with its code.
    pub async fn start_with(clock: HubClock, config: Config, rejoin: bool) -> Result<Self, CodedError> {
        let base = Base::new(config, clock)?;
        let access = access::access(&base).await?;
        let admission = Admission::new(&base, access::cluster_key(&base)?);
        let path = base.config.node.data.clone();
        if rejoin && let Some(aside) = DataFolder::set_aside(&path, base.clock.wall())? {
            info!(folder = %aside.display(), "the old data was set aside");
        }
        let mut folder = DataFolder::open(&path)?;
        recovery::check(&folder)?;
        StoreKind::of(&base.config).check(&folder)?;
        let bound = address::bind(&base.config).await?;
        let own_ports =
            [&bound.rest, &bound.raft].map(|one| one.local_addr().map_or(0, |address| address.port()));
        let (identity, nodes) = admission.identity(&mut folder, &bound).await?;
        let Bound { rest, raft, place } = bound;
        let endpoints = endpoints(&identity, &place);
        let cluster = (identity.cluster.unwrap_or_default(), identity.generation);
        let transport = admission.serve(raft, endpoints.node_id, cluster);
        heed(&base, &transport);
        let peers = Peers::new(&transport);
        set_clock(&base, &transport, &peers, nodes).await;
        folder.make_folders()?;
        let groups = groups::open(&base, &folder, &transport).await?;
        found(&groups, &identity, &place).await?;
        let identity = recovery::finish(&base, &groups, identity, &folder.register()).await?;
        admission.announce(&groups, &identity, folder.register(), &place).await?;
        keep_members(&base, &transport, &groups);

        let cache = cache::start(&base, &identity, &peers)?;
        let (cluster, steered) = control(&base, &transport, &groups, &peers, &cache);
        keep_time(&base, &endpoints, &groups, &peers, &steered)?;
        let live = live(&peers);
        let (led, state) = (steered.clone(), groups.state.clone());
        drain::watch(&base.tasks, endpoints.node_id, state, led, Arc::clone(&live), base.time());
        let targets = Targets::new(base.config.targets.allowed.clone(), own_ports, groups.state.clone());
        let ports = delivery::Ports {
            node: endpoints.node_id,
            state: groups.state.clone(),
            control: groups.proposals(),
            cluster: Arc::clone(&cluster) as Arc<dyn ClusterControl>,
            store: Arc::clone(&groups.messages.store),
            leadership: steered.messages.as_ref().map(|led| led.followed.seen.clone()),
            queue: Arc::clone(&groups.messages.queue),
            targets: targets.clone(),
        };
        let health = delivery::start(&base, &groups.delivery, ports)?;
        let parts = api::Parts {
            store: Arc::clone(&groups.messages.store),
            cache: cache.port,
            control: groups.proposals(),
            state: groups.state.clone(),
            cluster: Arc::clone(&cluster) as Arc<dyn ClusterControl>,
            health,
            targets,
            access,
        };
        let leaving = api::start(&base, parts, rest)?;
        folder.announce(&endpoints)?;
        Ok(Self { base, folder, endpoints, transport, groups, steered, cluster, live, leaving })
    }

    /// Where it is reached.
    #[must_use]
    pub const fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Its tasks.
    #[must_use]
    pub fn tasks(&self) -> Tasks {
        self.base.tasks.clone()
    }

    /// Waits until something failed that the node cannot go on without.
    pub async fn failed(&self) -> Failure {
        self.base.tasks.failed().await
    }

    /// Stops within the drain limit. In order: readiness off and a moment of grace, no new work, leaderships handed
    /// over, connections closed, the rest. After a failure there is nothing to be graceful about: it stops at once.
    pub async fn stop(self, orderly: bool) {
        let Self { base, folder, endpoints, transport, groups, steered, cluster, live, leaving } = self;
        let limit = base.config.node.drain_limit;
        let deadline = base.clock.instant() + if orderly { limit } else { limit.min(FAILED) };
        cluster.stop_taking();
        leaving.announce();
        if orderly {
            tokio::time::sleep(base.config.node.drain_delay.min(limit)).await;
            base.stop(Stage::Work, deadline).await;
            let handed = steered.iter().map(|led| {
                let name = led.group.as_str();
                hand_over(name, &*led.steered, endpoints.node_id, &*live, &*base.clock, deadline)
            });
            futures::future::join_all(handed).await;
            base.stop(Stage::Serve, deadline).await;
        } else {
            tokio::join!(base.stop(Stage::Work, deadline), base.stop(Stage::Serve, deadline));
            base.tasks.abort();
        }
        let last = deadline.max(base.clock.instant() + LAST);
        base.stop(Stage::Base, last).await;
        base.tasks.abort();
        drop((steered, cluster, live));
        groups.shutdown().await;
        transport.shutdown().await;
        folder.withdraw();
        info!("stopped");
    }
}

fn endpoints(identity: &Identity, place: &Place) -> Endpoints {
    Endpoints {
        pid: std::process::id(),
        node_id: identity.node.unwrap_or_default(),
        rest_url: place.rest_url.clone(),
        raft_addr: place.raft_addr.clone(),
    }
}

/// Which nodes answered lately.
fn live(peers: &Peers) -> Live {
    let peers = peers.clone();
    Arc::new(move |node| peers.live().contains(&node))
}

/// A node that the cluster goes on without must not go on either.
fn heed(base: &Base, transport: &Transport) {
    let transport = transport.clone();
    base.tasks.once(kind("membership_word"), |_| async move {
        let refusal = transport.expelled().await;
        Err(CodedError::new(code::OTHER_CLUSTER, refusal.to_string()).into())
    });
}

/// Sets hub time before anything is stamped with it: a node whose wall clock is off takes the others' median.
async fn set_clock(base: &Base, transport: &Transport, peers: &Peers, nodes: Nodes) {
    let me = transport.node();
    let others: Vec<NodeId> = nodes.iter().map(|(node, _)| *node).filter(|node| *node != me).collect();
    for (node, address) in nodes.iter().filter(|(node, _)| *node != me) {
        transport.set_address(*node, address);
    }
    let mut samples = peers.walls_of(others, WALLS).await;
    samples.push(Sample { node: me, wall: base.clock.wall() });
    base.clock.begin(&samples, Timestamp::EPOCH);
}

/// The first node of a cluster makes the groups, of itself; once, for a second time would be another cluster.
async fn found(groups: &Groups, identity: &Identity, place: &Place) -> Result<(), CodedError> {
    if identity.established {
        let mut empty = groups.control.is_empty().await?.then_some("control");
        if let Some(messages) = &groups.messages.group
            && messages.is_empty().await?
        {
            empty = Some("messages");
        }
        if let Some(name) = empty {
            let detail = format!("the log of {name} is empty, but this node took part in it before");
            return Err(CodedError::new(code::DAMAGED, detail));
        }
    }
    if !identity.founder || identity.established {
        return Ok(());
    }
    groups.control.initialize(&place.raft_addr).await?;
    if let Some(messages) = &groups.messages.group {
        messages.initialize(&place.raft_addr).await?;
    }
    Ok(())
}

fn keep_members(base: &Base, transport: &Transport, groups: &Groups) {
    let raft = &base.config.raft;
    let options = KeeperOptions { two_nodes: raft.two_nodes, remove_dead_after: raft.remove_dead_after };
    let keeper = options.build(transport, &groups.control, groups.messages.group.as_ref(), &groups.view);
    base.tasks.once(kind("membership"), |_| async move {
        keeper.run().await;
        Ok(())
    });
}

/// The cluster as operators see it, and the groups as they are handed over.
fn control(
    base: &Base,
    transport: &Transport,
    groups: &Groups,
    peers: &Peers,
    cache: &Cache,
) -> (Arc<ControlPort>, LedGroups) {
    let led = LedGroups {
        control: led(base, Group::Control, &groups.control),
        messages: groups.messages.group.as_ref().map(|group| led(base, Group::Messages, group)),
    };
    let port = ControlPort::new(Parts {
        node: transport.node(),
        generation: transport.generation(),
        state: groups.state.clone(),
        proposals: groups.proposals(),
        groups: led.clone(),
        peers: Arc::new(Known(peers.clone())),
        clock: Arc::clone(&base.clock),
        ids: Arc::clone(&base.ids),
        store: cache.checks(Arc::clone(&groups.messages.checks)),
    });
    (Arc::new(port), led)
}

fn led<M: StateMachine>(base: &Base, name: Group, group: &hub_raft::Group<M>) -> Led {
    let replicator: Arc<dyn Replicator<M::Command, M::Reply>> = Arc::new(group.clone());
    Led {
        group: name,
        steered: Arc::new(Steering(group.clone())),
        followed: follow(name, &replicator, &base.time(), &base.tasks),
    }
}

/// Asks the other nodes how they are, and compares clocks with them.
fn keep_time(
    base: &Base,
    endpoints: &Endpoints,
    groups: &Groups,
    peers: &Peers,
    steered: &LedGroups,
) -> Result<(), CodedError> {
    let (asker, members) = (peers.clone(), groups.state.clone());
    base.tasks.once(kind("peers"), |_| async move {
        asker.run(move || members.borrow().members.keys().copied().collect()).await;
        Ok(())
    });
    let state = groups.state.clone();
    let sampler = Sampler {
        node: endpoints.node_id,
        clock: Arc::clone(&base.clock),
        peers: Arc::new(Known(peers.clone())),
        floor: Box::new(move || state.borrow().clock),
        groups: steered.iter().map(|led| led.followed.seen.clone()).collect(),
    };
    let metrics = SamplerMetrics::register(&base.registry).map_err(metrics)?;
    base.tasks.once(kind("clock"), |_| async move {
        sampler.run(metrics).await;
        Ok(())
    });
    Ok(())
}

/// The other nodes as the transport finds them.
struct Known(Peers);

impl control_port::Peers for Known {
    fn live(&self) -> BTreeSet<NodeId> {
        self.0.live()
    }
}

#[async_trait]
impl PeerClocks for Known {
    async fn walls(&self, limit: Duration) -> Vec<Sample> {
        self.0.walls(limit).await
    }
}
