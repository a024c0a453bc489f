//! The replicated groups of a node over one transport, and what stands on them.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use hub_core::control::{Command, Machine, Reply, State};
use hub_core::error::code;
use hub_core::id::NodeId;
use hub_core::port::{self, ClusterError, GroupStatus, Replicator, Stamper, StateMachine};
use hub_raft::{ControlGroup, Group, GroupOptions, MemoryOptions, Profile, Transport, View};
use tokio::sync::watch;

use super::base::Base;
use super::message_plane::MessagePlane;
use super::{delivery, embedded, postgres};
use crate::coded::CodedError;
use crate::config::RaftProfile;
use crate::control_port::Steered;
use crate::identity::DataFolder;
use crate::lifecycle::{OnCancel, OnError, Stage, TaskKind};
use crate::worker::delivery::Handle;

const fn kind(name: &'static str, on_cancel: OnCancel) -> TaskKind {
    TaskKind { name, stage: Stage::Base, on_error: OnError::StopNode, on_cancel }
}

/// The groups and the message store.
pub struct Groups {
    /// Members, services and settings.
    pub control: ControlGroup,
    /// The control state as this node has it.
    pub view: View<Machine>,
    /// The same for who waits for its changes.
    pub state: watch::Receiver<State>,
    /// The messages.
    pub messages: MessagePlane,
    /// The slots of delivery.
    pub delivery: Handle,
}

/// Opens the groups and the message store, and starts what they need.
///
/// # Errors
/// The data is damaged, the disk fails, or the database refuses this hub.
pub async fn open(base: &Base, folder: &DataFolder, transport: &Transport) -> Result<Groups, CodedError> {
    let memory = MemoryOptions { dir: folder.path().join("control").join("snapshot") };
    let built = tokio::task::spawn_blocking(move || memory.build::<Machine>()).await;
    let (machine, view) = built.map_err(|error| fault("control", &error))??;
    let control = GroupOptions::new("control", folder.path().join("control"));
    let control = open_group(base, port::Group::Control, control, machine, transport, None).await?;
    let state = follow_state(base, &view);
    let delivery = delivery::options(base).handle(state.clone(), base.time());
    let messages = match &base.config.postgres.url {
        Some(url) => postgres::open(base, folder, transport.node(), state.clone(), &delivery, url).await?,
        None => embedded::open(base, folder, transport, &delivery).await?,
    };
    Ok(Groups { control, view, state, messages, delivery })
}

/// Opens one group; its failure stops the node.
pub(super) async fn open_group<M: StateMachine>(
    base: &Base,
    which: port::Group,
    mut options: GroupOptions,
    machine: M,
    transport: &Transport,
    stamper: Option<Arc<dyn Stamper<M::Command>>>,
) -> Result<Group<M>, CodedError> {
    options.profile = match base.config.raft.profile {
        RaftProfile::Default => Profile::Default,
        RaftProfile::Fast => Profile::Fast,
        RaftProfile::Wan => Profile::Wan,
    };
    options.max_waiting_bytes = usize::try_from(base.config.raft.max_waiting.0).unwrap_or(usize::MAX);
    let group = Group::open(options, machine, transport, stamper, &base.registry).await?;
    watch_failure(base, which, &group);
    Ok(group)
}

/// The view as a channel that several can wait on.
fn follow_state(base: &Base, view: &View<Machine>) -> watch::Receiver<State> {
    let mut view = view.clone();
    let (sender, state) = watch::channel(view.view());
    base.tasks.once(kind("control_state", OnCancel::Drop), |_| async move {
        sender.send_replace(view.view());
        while view.changed().await {
            sender.send_replace(view.view());
        }
        Ok(())
    });
    state
}

fn watch_failure<M: StateMachine>(base: &Base, which: port::Group, group: &Group<M>) {
    let group = group.clone();
    base.tasks.once(kind(which.as_str(), OnCancel::Drop), |_| async move {
        let failure = group.failed().await;
        Err(CodedError::new(failure.code, failure.reason.to_string()).into())
    });
}

fn fault(what: &str, error: &dyn std::fmt::Display) -> CodedError {
    CodedError::new(code::INTERNAL, format!("{what} cannot be opened: {error}"))
}

impl Groups {
    /// Where control commands are proposed.
    #[must_use]
    pub fn proposals(&self) -> Arc<dyn Replicator<Command, Reply>> {
        Arc::new(self.control.clone())
    }

    /// Takes no more part and closes the logs.
    pub async fn shutdown(self) {
        let Self { control, view, state, messages, delivery } = self;
        drop((view, state, delivery));
        tokio::join!(control.shutdown(), messages.shutdown());
    }
}

/// A group as the cluster's control steers it.
pub struct Steering<M: StateMachine>(pub Group<M>);

#[async_trait]
impl<M: StateMachine> Steered for Steering<M> {
    fn status(&self) -> GroupStatus {
        let status = self.0.status();
        GroupStatus {
            leader: status.leadership.leader,
            term: status.leadership.term,
            ready: status.leadership.ready,
            last_log_index: status.last_log_index,
            committed_index: status.committed_index,
            applied_index: status.applied_index,
            purged_index: status.purged_index,
            snapshot_index: status.snapshot_index,
            voters: status.voters,
            learners: status.learners,
        }
    }

    async fn transfer(&self, to: Option<NodeId>, deadline: Instant) -> Result<NodeId, ClusterError> {
        self.0.transfer(to, deadline).await
    }
}
