//! The message store of a node, whatever it is. Everything else asks only for the ports here, and for the group if the
//! nodes themselves keep the messages.

use std::sync::Arc;

use hub_core::port::{DeliveryQueue, MessageStore};
use hub_raft::Group;
use hub_storage::sqlite::SqliteMachine;

use crate::control_port::StoreChecks;

/// Where the messages are, and how they are reached.
pub struct MessagePlane {
    /// The messages.
    pub store: Arc<dyn MessageStore>,
    /// What is to be delivered.
    pub queue: Arc<dyn DeliveryQueue>,
    /// The replicated group that keeps them; `None` where a database does.
    pub group: Option<Group<SqliteMachine>>,
    /// How the store fares.
    pub checks: StoreChecks,
}

impl MessagePlane {
    /// Takes no more part and closes what is open.
    pub async fn shutdown(self) {
        let Self { store, queue, group, checks } = self;
        drop((store, queue, checks));
        if let Some(group) = group {
            group.shutdown().await;
        }
    }
}
