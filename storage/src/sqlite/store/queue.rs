//! The delivery queue of this node.

use std::time::Instant;

use async_trait::async_trait;
use hub_core::delivery::{Claim, Settlement};
use hub_core::id::ServiceName;
use hub_core::port::{Claimed, DeliveryQueue, QueueSignal, StoreError, Want};
use hub_core::time::Timestamp;

use super::Store;
use super::propose::unexpected;
use crate::sqlite::command::{ClaimDue, Command, Reply};

#[async_trait]
impl DeliveryQueue for Store {
    async fn next(&self) -> QueueSignal {
        self.inner.ports.feed.next().await
    }

    async fn claim(&self, wants: Vec<Want>, deadline: Instant) -> Result<Vec<Claimed>, StoreError> {
        let inner = &self.inner;
        let Some(term) = inner.leads() else {
            return Err(StoreError::Unavailable {
                reason: "this node does not lead the group".to_owned(),
                retryable: true,
            });
        };
        let owner = inner.ports.feed.node();
        let command = Command::Claim(ClaimDue { owner, term, wants });
        let granted = match inner.propose_in_term(term, command, deadline).await? {
            Reply::Claimed(granted) => granted,
            other => return Err(unexpected(&other)),
        };
        let ids: Vec<_> = granted.iter().map(|one| one.message).collect();
        let mut messages = inner.ports.reader.messages(&ids).await?;
        let claimed = granted.into_iter().filter_map(|one| {
            let message = messages.remove(&one.message)?;
            let claim =
                Claim { message: one.message, owner, term, attempt: one.attempt, lease_end: one.lease_end };
            Some(Claimed { claim, message, retry_count: one.retry_count })
        });
        Ok(claimed.collect())
    }

    async fn settle(&self, settlements: Vec<Settlement>, deadline: Instant) -> Result<Vec<bool>, StoreError> {
        self.inner.settle(settlements, deadline).await
    }

    async fn due(&self) -> Result<(Vec<ServiceName>, Option<Timestamp>), StoreError> {
        let ports = &self.inner.ports;
        Ok(ports.reader.due(ports.clock.now()).await?)
    }
}
