//! How a node comes into a cluster: it founds one, joins one, or forms one with its peers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hub_core::error::code;
use hub_core::id::NodeId;
use hub_core::port::Clock;
use tracing::{debug, info};

use super::address::{Formation, formation};
use crate::coded::CodedError;
use crate::config::{HostPort, Raft};

/// How long a doubtful refusal is doubted.
const DOUBT: Duration = Duration::from_secs(8);
/// The pause between two rounds of asking.
const PAUSE: Duration = Duration::from_millis(250);

/// What a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A node of this cluster.
    Member(u128),
    /// A node that waits for a cluster, as this one does.
    Fresh,
    /// It does not answer.
    Silent,
}

/// A node's card, as it asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its id, if it was let in before.
    pub node: Option<NodeId>,
    /// The cluster it belongs to, if it was let in before.
    pub cluster: Option<u128>,
    /// The generation of it that the node knows; 0 if it belongs to none.
    pub generation: u64,
    /// Tells a copy of its folder from its restart.
    pub incarnation: u128,
    /// `host:port` for other nodes.
    pub raft_addr: String,
    /// Base URL of its REST interface.
    pub rest_url: String,
    /// A database keeps its messages.
    pub database: bool,
}

/// It was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its id.
    pub node: NodeId,
    /// The cluster.
    pub cluster: u128,
    /// Its generation.
    pub generation: u64,
    /// Where the nodes are reached.
    pub nodes: Vec<(NodeId, String)>,
}

/// Why it was not let in.
#[derive(Debug)]
pub enum JoinError {
    /// Ask again, there or elsewhere.
    Later(String),
    /// Ask again for a little while; then it is so.
    Perhaps(CodedError),
    /// Asking again does not help.
    Never(CodedError),
}

/// Talks to nodes before this one belongs to their cluster.
#[async_trait]
pub trait Contact: Send + Sync {
    /// What is at an address.
    async fn probe(&self, peer: &str) -> Probe;
    /// Asks to be let in.
    async fn join(&self, peer: &str, card: &Card) -> Result<Joined, JoinError>;
}

/// The way into a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Found a new one.
    Found,
    /// This one let the node in.
    Joined(Joined),
}

/// Finds the way in for a node that belongs to no cluster yet.
///
/// # Errors
/// Nobody could be reached in time (`HUB-2009`), or the node is not wanted.
pub async fn enter(
    contact: &dyn Contact,
    raft: &Raft,
    listen: SocketAddr,
    card: &Card,
    clock: &dyn Clock,
) -> Result<Entry, CodedError> {
    let deadline = clock.instant() + raft.join_timeout;
    if !raft.join.is_empty() {
        let peers: Vec<String> = raft.join.iter().map(HostPort::to_string).collect();
        return join(contact, &peers, card, deadline, clock).await.map(Entry::Joined);
    }
    if raft.expect == 0 {
        return Ok(Entry::Found);
    }
    let expect = usize::from(raft.expect);
    let formation = loop {
        match formation(&raft.peers, expect, listen, &card.raft_addr).await? {
            Some(formation) => break formation,
            None if clock.instant() >= deadline => {
                let detail = format!("raft.peers did not resolve to {expect} addresses");
                return Err(CodedError::new(code::NOT_REACHABLE, detail));
            }
            None => tokio::time::sleep(PAUSE).await,
        }
    };
    form(contact, &formation, card, deadline, clock).await
}

/// Asks one peer after another until one lets the node in.
///
/// # Errors
/// As [`enter`].
pub async fn join(
    contact: &dyn Contact,
    peers: &[String],
    card: &Card,
    deadline: Instant,
    clock: &dyn Clock,
) -> Result<Joined, CodedError> {
    let mut told = None;
    let doubted = deadline.min(clock.instant() + DOUBT);
    loop {
        let mut last = String::from("no peer is known");
        for peer in peers.iter().filter(|peer| **peer != card.raft_addr) {
            match contact.join(peer, card).await {
                Ok(joined) => return Ok(joined),
                Err(JoinError::Never(error)) => return Err(error),
                Err(JoinError::Perhaps(error)) if clock.instant() + PAUSE >= doubted => return Err(error),
                Err(JoinError::Perhaps(error)) => last = error.detail,
                Err(JoinError::Later(reason)) => last = format!("{peer}: {reason}"),
            }
        }
        if told.as_ref() != Some(&last) {
            info!(reason = last, "the cluster cannot be joined yet");
            told = Some(last.clone());
        }
        if clock.instant() + PAUSE >= deadline {
            let detail = format!("none of {} let this node in; the last said: {last}", peers.join(", "));
            return Err(CodedError::new(code::NOT_REACHABLE, detail));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The first of the peers founds the cluster once all others wait for it, so that a founder whose folder was lost never
/// makes a second one while the first lives; the others join.
async fn form(
    contact: &dyn Contact,
    formation: &Formation,
    card: &Card,
    deadline: Instant,
    clock: &dyn Clock,
) -> Result<Entry, CodedError> {
    let others: Vec<String> = formation.others().cloned().collect();
    if !formation.founds() {
        return join(contact, &others, card, deadline, clock).await.map(Entry::Joined);
    }
    loop {
        let probes = futures::future::join_all(others.iter().map(|peer| contact.probe(peer))).await;
        debug!(?others, ?probes, "peers were asked");
        if probes.iter().any(|probe| matches!(probe, Probe::Member(_))) {
            return join(contact, &others, card, deadline, clock).await.map(Entry::Joined);
        }
        if probes.iter().all(|probe| *probe == Probe::Fresh) {
            return Ok(Entry::Found);
        }
        if clock.instant() + PAUSE >= deadline {
            let silent = others.iter().zip(&probes).filter(|(_, probe)| **probe == Probe::Silent);
            let silent: Vec<&str> = silent.map(|(peer, _)| peer.as_str()).collect();
            let detail = format!("the cluster cannot be formed: {} did not answer", silent.join(", "));
            return Err(CodedError::new(code::NOT_REACHABLE, detail));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;
    use crate::clock::HubClock;

    /// Peers whose answers come one after another; the last one stays.
    #[derive(Default)]
    struct Fake {
        probes: Mutex<BTreeMap<String, Vec<Probe>>>,
        joins: Mutex<BTreeMap<String, Vec<Result<u64, &'static str>>>>,
    }

    impl Fake {
        fn probes(self, peer: &str, probes: &[Probe]) -> Self {
            self.probes.lock().unwrap().insert(peer.to_owned(), probes.to_vec());
            self
        }

        fn joins(self, peer: &str, joins: &[Result<u64, &'static str>]) -> Self {
            self.joins.lock().unwrap().insert(peer.to_owned(), joins.to_vec());
            self
        }
    }

    fn next<T: Clone>(answers: &Mutex<BTreeMap<String, Vec<T>>>, peer: &str) -> Option<T> {
        let mut answers = answers.lock().unwrap();
        let list = answers.get_mut(peer)?;
        if list.len() > 1 { Some(list.remove(0)) } else { list.first().cloned() }
    }

    #[async_trait]
    impl Contact for Fake {
        async fn probe(&self, peer: &str) -> Probe {
            next(&self.probes, peer).unwrap_or(Probe::Silent)
        }

        async fn join(&self, peer: &str, _card: &Card) -> Result<Joined, JoinError> {
            match next(&self.joins, peer) {
                Some(Ok(node)) => {
                    Ok(Joined { node: NodeId(node), cluster: 7, generation: 1, nodes: Vec::new() })
                }
                Some(Err("never")) => Err(JoinError::Never(CodedError::new(code::OTHER_CLUSTER, "no"))),
                Some(Err(reason)) => Err(JoinError::Later(reason.to_owned())),
                None => Err(JoinError::Later("silent".to_owned())),
            }
        }
    }

    const A: &str = "127.0.0.1:1001";
    const B: &str = "127.0.0.1:1002";
    const C: &str = "127.0.0.1:1003";

    async fn enter_as(me: &str, fake: Fake, join: &[&str], expect: u16) -> Result<Entry, CodedError> {
        let peers = |list: &[&str]| {
            let split = list.iter().map(|text| text.rsplit_once(':').unwrap());
            split
                .map(|(host, port)| HostPort { host: host.to_owned(), port: port.parse().unwrap() })
                .collect()
        };
        let raft = Raft {
            listen: me.parse().unwrap(),
            advertise: None,
            profile: crate::config::RaftProfile::Default,
            join: peers(join),
            join_timeout: Duration::from_secs(2),
            expect,
            peers: if expect > 0 { peers(&[C, A, B]) } else { Vec::new() },
            two_nodes: false,
            remove_dead_after: Duration::ZERO,
            plain_peers: false,
            cluster_key: None,
            max_waiting: crate::config::ByteSize(1),
        };
        let card = Card {
            node: None,
            cluster: None,
            generation: 0,
            incarnation: 1,
            raft_addr: me.to_owned(),
            rest_url: "http://127.0.0.1:1".to_owned(),
            database: false,
        };
        enter(&fake, &raft, raft.listen, &card, &HubClock::default()).await
    }

    fn joined(entry: Result<Entry, CodedError>) -> u64 {
        match entry.unwrap() {
            Entry::Joined(joined) => joined.node.0,
            Entry::Found => panic!("founded a cluster"),
        }
    }

    #[tokio::test]
    async fn alone_it_founds() {
        assert_eq!(enter_as(A, Fake::default(), &[], 0).await.unwrap(), Entry::Found);
    }

    #[tokio::test]
    async fn joins_at_whichever_peer_answers_and_asks_again() {
        let fake = Fake::default().joins(B, &[Err("no leader"), Err("no leader"), Ok(5)]);
        assert_eq!(joined(enter_as(A, fake, &[C, B], 0).await), 5);
    }

    #[tokio::test]
    async fn a_final_refusal_ends_it_and_silence_too() {
        let fake = Fake::default().joins(B, &[Err("never")]);
        assert_eq!(enter_as(A, fake, &[B], 0).await.unwrap_err().code, code::OTHER_CLUSTER);
        assert_eq!(enter_as(A, Fake::default(), &[B], 0).await.unwrap_err().code, code::NOT_REACHABLE);
    }

    #[tokio::test]
    async fn the_first_founds_once_all_others_wait_and_the_others_join() {
        let waiting = [Probe::Silent, Probe::Fresh];
        let fake = Fake::default().probes(B, &waiting).probes(C, &[Probe::Fresh]);
        assert_eq!(enter_as(A, fake, &[], 3).await.unwrap(), Entry::Found);
        let fake = Fake::default().joins(A, &[Err("not yet"), Ok(4)]);
        assert_eq!(joined(enter_as(B, fake, &[], 3).await), 4);
    }

    #[tokio::test]
    async fn a_founder_that_lost_its_folder_joins_the_cluster_that_lives() {
        let fake =
            Fake::default().probes(B, &[Probe::Member(7)]).probes(C, &[Probe::Fresh]).joins(B, &[Ok(9)]);
        assert_eq!(joined(enter_as(A, fake, &[], 3).await), 9);
        let fake = Fake::default().probes(B, &[Probe::Fresh]);
        assert_eq!(enter_as(A, fake, &[], 3).await.unwrap_err().code, code::NOT_REACHABLE);
    }
}
