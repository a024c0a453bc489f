//! The delivery queue of this node.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use hub_core::delivery::{AttemptOutcome, Claim, SettleOutcome, Settlement};
use hub_core::id::ServiceName;
use hub_core::message::Attempt;
use hub_core::port::{Claimed, DeliveryQueue, QueueSignal, StoreError, Submitted, Want};
use hub_core::time::Timestamp;

use super::Store;
use super::propose::unexpected;
use crate::sqlite::command::{ClaimDue, Command, Reply};

/// How long a message that is damaged here is put off: by then another node may lead, which has it whole.
const DAMAGED: Duration = Duration::from_secs(600);

impl Store {
    /// The end of a claim on a message that this node cannot read.
    fn put_off(&self, claim: Claim) -> Settlement {
        let now = self.inner.ports.clock.now();
        let attempt = Attempt {
            number: claim.attempt,
            node: claim.owner,
            instance: None,
            started_at: now,
            duration_ms: 0,
            outcome: AttemptOutcome::HubFault,
            http_status: None,
            error_class: Some("damaged".into()),
            response: None,
        };
        let outcome = SettleOutcome::RetryAt { at: now.plus(DAMAGED), counted: false };
        let error = Some("the message is damaged on the node that was to deliver it".into());
        Settlement { claim, outcome, attempt: Some(attempt), error }
    }
}

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
        let request = inner.ports.ids.request_id();
        let command = Command::Claim(ClaimDue { owner, term, wants });
        // From here on, what is granted and not returned is given back.
        let expected = inner.ports.feed.expect(request, term);
        let granted = match inner.propose_in_term(term, Submitted { request, command }, deadline).await {
            Ok(Reply::Claimed(granted)) => granted,
            Ok(other) => return Err(unexpected(&other)),
            Err(error) => {
                if !matches!(error, StoreError::Unknown(_)) {
                    expected.taken();
                }
                return Err(error);
            }
        };
        let ids: Vec<_> = granted.iter().map(|one| one.message).collect();
        let reader = &inner.ports.reader;
        let mut messages = reader.messages(&ids).await.inspect_err(|fault| reader.condemn(fault))?;
        let (mut claimed, mut damaged) = (Vec::with_capacity(granted.len()), Vec::new());
        for one in granted {
            let claim = one.claim(owner, term);
            match messages.remove(&one.message) {
                Some(message) => claimed.push(Claimed { claim, message, retry_count: one.retry_count }),
                None => damaged.push(self.put_off(claim)),
            }
        }
        if !damaged.is_empty() {
            inner.settle(damaged, deadline).await?;
        }
        expected.taken();
        Ok(claimed)
    }

    async fn settle(&self, settlements: Vec<Settlement>, deadline: Instant) -> Result<Vec<bool>, StoreError> {
        self.inner.settle(settlements, deadline).await
    }

    async fn due(&self) -> Result<(Vec<ServiceName>, Option<Timestamp>), StoreError> {
        let ports = &self.inner.ports;
        Ok(ports.reader.due(ports.clock.now()).await?)
    }
}
