//! Who this node is in its cluster: found or let in at its first start, known again at every later one.

use std::sync::Arc;
use std::time::Duration;

use hub_core::control::{Command, Refusal, Reply, State};
use hub_core::error::code;
use hub_core::id::NodeId;
use hub_core::port::{Clock, ProposeError, Replicator, Submitted};
use hub_raft::{ClusterKey, Joiner, Transport, TransportOptions};
use tokio::net::TcpListener;
use tracing::{info, warn};

use super::address::{Bound, Place};
use super::base::Base;
use super::contact::{VERSION, Wire};
use super::forming::{self, Card, Contact, Entry, JoinError};
use super::groups::Groups;
use crate::coded::CodedError;
use crate::config::HostPort;
use crate::identity::{DataFolder, Identity, Register};
use crate::lifecycle::{OnCancel, OnError, Stage, TaskKind};
use crate::store_kind::StoreKind;

/// How long one proposal may take.
const PROPOSE: Duration = Duration::from_secs(5);
/// The pause before the cluster is told again.
const PAUSE: Duration = Duration::from_millis(250);

const KIND: TaskKind =
    TaskKind { name: "announce", stage: Stage::Base, on_error: OnError::StopNode, on_cancel: OnCancel::Drop };

/// Nodes of the cluster and where they are reached.
pub type Nodes = Vec<(NodeId, String)>;

/// What a node needs to be known.
#[derive(Clone)]
pub struct Admission {
    base: Base,
    wire: Arc<Wire>,
    key: ClusterKey,
    boot: u128,
}

impl Admission {
    /// With the key of the cluster.
    #[must_use]
    pub fn new(base: &Base, key: ClusterKey) -> Self {
        let boot = base.random();
        let wire = Arc::new(Wire(Joiner { key: key.clone(), boot }));
        Self { base: base.clone(), wire, key, boot }
    }

    /// Who this node is: as its folder says, or as the cluster says that it joins or forms now.
    ///
    /// # Errors
    /// It is not let in, or nobody answers.
    pub async fn identity(
        &self,
        folder: &mut DataFolder,
        bound: &Bound,
    ) -> Result<(Identity, Nodes), CodedError> {
        let store = StoreKind::of(&self.base.config);
        let identity = match folder.identity() {
            // One that was never let in takes what is configured now; any other was checked to have it.
            Some(identity) => identity.keeping(store),
            None => {
                let fresh = Identity::joiner(self.base.random(), store);
                folder.save(fresh.clone())?;
                fresh
            }
        };
        let card = card(&identity, &bound.place);
        if identity.node.is_some() && identity.cluster.is_some() {
            let nodes = self.known_again(&card).await?;
            return Ok((identity, nodes));
        }
        let (identity, nodes) = match self.enter(&card, &bound.raft).await? {
            Entry::Found => (identity.founding(self.base.random()), Nodes::new()),
            Entry::Joined(joined) => {
                info!(node = joined.node.0, "this node was let into the cluster");
                (identity.admitted(joined.cluster, joined.node, joined.generation), joined.nodes)
            }
        };
        folder.save(identity.clone())?;
        Ok((identity, nodes))
    }

    /// While this node waits for a cluster it says so to others that ask.
    async fn enter(&self, card: &Card, listener: &TcpListener) -> Result<Entry, CodedError> {
        let raft = &self.base.config.raft;
        let address = listener.local_addr().map_err(|error| io("the address of the listener", error))?;
        let waiting =
            if raft.expect > 0 { Some(self.serve(share(listener)?, NodeId(0), (0, 0))) } else { None };
        let entry = forming::enter(&*self.wire, raft, address, card, &*self.base.clock).await;
        if let Some(waiting) = waiting {
            waiting.shutdown().await;
        }
        entry
    }

    /// A node that comes back asks once whether it is welcome; a cluster that does not answer is no reason not to start.
    async fn known_again(&self, card: &Card) -> Result<Nodes, CodedError> {
        let deadline = self.base.clock.instant() + Duration::from_secs(10);
        let peers = self.configured(card);
        loop {
            let mut doubtful = None;
            for peer in &peers {
                match self.wire.join(peer, card).await {
                    Ok(joined) => return Ok(joined.nodes),
                    Err(JoinError::Never(error)) => return Err(error),
                    Err(JoinError::Perhaps(error)) => doubtful = Some(error),
                    Err(JoinError::Later(reason)) => info!(peer, reason, "the cluster does not answer yet"),
                }
            }
            match doubtful {
                None => return Ok(Nodes::new()),
                Some(error) if self.base.clock.instant() >= deadline => return Err(error),
                Some(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn configured(&self, card: &Card) -> Vec<String> {
        let raft = &self.base.config.raft;
        let named = raft.join.iter().chain(&raft.peers).map(HostPort::to_string);
        named.filter(|peer| *peer != card.raft_addr).collect()
    }

    /// The transport of a node.
    #[must_use]
    pub fn serve(
        &self,
        listener: TcpListener,
        node: NodeId,
        (cluster, generation): (u128, u64),
    ) -> Transport {
        let (key, version) = (self.key.clone(), Arc::from(VERSION));
        TransportOptions { key, cluster, generation, node, version, boot: self.boot }
            .build(listener, self.base.time())
    }

    /// Sees to it that the cluster knows this node at its present address: before it returns if the cluster is being
    /// founded, else in the background.
    ///
    /// # Errors
    /// The cluster does not want this node.
    pub async fn announce(
        &self,
        groups: &Groups,
        identity: &Identity,
        register: Register,
        place: &Place,
    ) -> Result<(), CodedError> {
        let card = card(identity, place);
        let announcer = Announcer {
            admission: self.clone(),
            control: groups.proposals(),
            messages: groups.messages.group.clone(),
            state: groups.state.clone(),
            identity: identity.clone(),
            register,
            card,
        };
        if identity.founder && !announcer.is_member() {
            return announcer.run().await;
        }
        self.base.tasks.once(KIND, |_| async move { announcer.run().await.map_err(Into::into) });
        Ok(())
    }
}

/// Another handle of the same listening socket.
fn share(listener: &TcpListener) -> Result<TcpListener, CodedError> {
    use std::os::fd::AsFd;
    let failed = |error| io("the listener for other nodes", error);
    let copy = listener.as_fd().try_clone_to_owned().map_err(failed)?;
    TcpListener::from_std(std::net::TcpListener::from(copy)).map_err(failed)
}

fn io(what: &str, error: std::io::Error) -> CodedError {
    CodedError::new(code::IO, format!("{what} cannot be used")).because(error)
}

fn card(identity: &Identity, place: &Place) -> Card {
    Card {
        node: identity.node,
        cluster: identity.cluster,
        generation: identity.generation,
        incarnation: identity.incarnation(),
        raft_addr: place.raft_addr.clone(),
        rest_url: place.rest_url.clone(),
        database: identity.store == StoreKind::Database,
    }
}

/// Tells the cluster who this node is and where.
struct Announcer {
    admission: Admission,
    control: Arc<dyn Replicator<Command, Reply>>,
    messages: Option<hub_raft::Group<hub_storage::sqlite::SqliteMachine>>,
    state: tokio::sync::watch::Receiver<State>,
    identity: Identity,
    register: Register,
    card: Card,
}

impl Announcer {
    fn me(&self) -> NodeId {
        self.card.node.unwrap_or_default()
    }

    fn is_member(&self) -> bool {
        self.state.borrow().members.contains_key(&self.me())
    }

    /// The cluster knows this node as it is now.
    fn is_known(&self) -> bool {
        let state = self.state.borrow();
        state.cluster.is_some()
            && state.members.get(&self.me()).is_some_and(|member| {
                *member.raft_addr == *self.card.raft_addr
                    && *member.rest_url == *self.card.rest_url
                    && &*member.version == VERSION
            })
    }

    async fn run(self) -> Result<(), CodedError> {
        let base = &self.admission.base;
        let mut told = false;
        while !(told && self.is_known()) {
            let seen = self.control.leadership();
            if seen.leader == Some(self.me()) {
                match self.tell_here().await {
                    Ok(refused) => {
                        if let Some(error) = refused {
                            return Err(error);
                        }
                        told = true;
                        continue;
                    }
                    Err(error) => info!(%error, "this node could not be announced yet"),
                }
            } else {
                told |= self.tell_there().await?;
            }
            if !(told && self.is_known()) {
                let deadline = base.clock.instant() + PAUSE;
                let _changed =
                    tokio::time::timeout_at(deadline.into(), self.control.leadership_changed(seen)).await;
            }
        }
        if self.identity.established { Ok(()) } else { self.establish().await }
    }

    /// Every log holds something from now on: one found empty later has forgotten its votes. (That of `control` does, since
    /// this node is a member.)
    async fn establish(&self) -> Result<(), CodedError> {
        if let Some(messages) = &self.messages {
            while messages.is_empty().await? {
                tokio::time::sleep(PAUSE).await;
            }
        }
        self.register.save(&self.identity.established())
    }

    /// On the leader. `Ok(Some)` is a refusal for good.
    async fn tell_here(&self) -> Result<Option<CodedError>, ProposeError> {
        if self.identity.founder
            && let Some(cluster) = self.card.cluster
        {
            self.propose(Command::Found { cluster }).await?;
        }
        let reply = self
            .propose(Command::Admit {
                node: self.card.node,
                incarnation: self.card.incarnation,
                raft_addr: self.card.raft_addr.as_str().into(),
                rest_url: self.card.rest_url.as_str().into(),
                version: VERSION.into(),
            })
            .await?;
        Ok(match reply {
            Reply::Refused(Refusal::IdentityTaken) => {
                Some(CodedError::new(code::IDENTITY_TAKEN, "another node has this node's id"))
            }
            Reply::Refused(refusal) => Some(CodedError::new(
                code::OTHER_CLUSTER,
                format!("the cluster does not take this node: {refusal}"),
            )),
            _ => None,
        })
    }

    async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        let base = &self.admission.base;
        let proposal = Submitted { request: base.ids.request_id(), command };
        Ok(self.control.propose(proposal, base.clock.instant() + PROPOSE).await?.reply)
    }

    /// Asks whoever is known; whether somebody took it.
    async fn tell_there(&self) -> Result<bool, CodedError> {
        let mut peers = self.admission.configured(&self.card);
        {
            let state = self.state.borrow();
            let others = state.members.values().filter(|member| member.id != self.me());
            peers.extend(others.map(|member| member.raft_addr.to_string()));
        }
        peers.sort();
        peers.dedup();
        for peer in peers {
            match self.admission.wire.join(&peer, &self.card).await {
                Ok(_) => return Ok(true),
                Err(JoinError::Never(error)) => return Err(error),
                Err(JoinError::Perhaps(error)) => warn!(%error, "this node is not taken yet"),
                Err(JoinError::Later(_)) => {}
            }
        }
        Ok(false)
    }
}
