//! The rows as the broker's side needs them: which ids to publish, and claims on what was consumed.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use hub_core::id::{MessageId, ServiceName};
use hub_core::port::{Claimed, StoreError};
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::claim;
use super::fault::Fault;
use super::outbox_port::Outgoing;
use super::row::{self, millis};
use super::store::Store;
use crate::rabbitmq::{Rows, UNDERTAKEN, Undertaken, Wanted};

pub(super) const CLAIM_THESE: &str = include_str!("sql/claim_these.sql");
pub(super) const TAKE_PARKED: &str = include_str!("sql/take_parked.sql");
pub(super) const TAKE_OVERDUE: &str = include_str!("sql/take_overdue.sql");
pub(super) const UNDERTAKEN_BY_TARGET: &str = include_str!("sql/undertaken.sql");
pub(super) const PARKED: &str = "SELECT w.target FROM unnest($1::text[]) AS w(target) WHERE EXISTS (SELECT 1 FROM deliveries d \
     WHERE d.target = w.target AND d.owner IS NULL AND d.due > '-infinity' \
     AND d.due <= hub_now() AND d.publish_after IS NULL)";
pub(super) const PARK: &str = "UPDATE deliveries SET publish_after = NULL \
     WHERE id = ANY($1) AND owner IS NULL AND publish_after IS NOT NULL";

fn outgoing(found: &PgRow) -> Result<Outgoing, Fault> {
    Ok(Outgoing {
        id: row::message_id(found, 0)?,
        target: row::service(found, 1)?,
        priority: row::priority(found, 2)?,
    })
}

fn number(found: &PgRow, column: usize) -> Result<u32, Fault> {
    Ok(u32::try_from(row::get::<i64>(found, column)?).unwrap_or(u32::MAX))
}

impl Store {
    /// One statement that changes `publish_after` and says of which rows.
    async fn take(
        &self,
        statement: &'static str,
        target: &ServiceName,
        limit: u32,
    ) -> Result<Vec<Outgoing>, StoreError> {
        let inner = self.inner();
        let query =
            sqlx::query(statement).bind(target.as_str()).bind(i64::from(limit)).bind(millis(UNDERTAKEN));
        let taken = async {
            let rows = inner.work.write("taking messages to publish", inner.soon(), query).await?;
            rows.iter().map(outgoing).collect::<Result<Vec<_>, _>>()
        };
        let mut taken: Vec<Outgoing> = taken.await.map_err(Fault::of_read)?;
        taken.sort_by_key(|one| (std::cmp::Reverse(one.priority), one.id));
        Ok(taken)
    }
}

#[async_trait]
impl Rows for Store {
    async fn take_parked(&self, target: &ServiceName, limit: u32) -> Result<Vec<Outgoing>, StoreError> {
        self.take(TAKE_PARKED, target, limit).await
    }

    async fn take_overdue(&self, target: &ServiceName, limit: u32) -> Result<Vec<Outgoing>, StoreError> {
        self.take(TAKE_OVERDUE, target, limit).await
    }

    async fn undertaken(&self) -> Result<Vec<Undertaken>, StoreError> {
        let inner = self.inner();
        let read = async {
            let query = || sqlx::query(UNDERTAKEN_BY_TARGET);
            let rows = inner.work.read("looking for lost messages", inner.soon(), query).await?;
            let undertaken = |found: &PgRow| {
                let target = row::service(found, 0)?;
                Ok(Undertaken { target, all: number(found, 1)?, overdue: number(found, 2)? })
            };
            rows.iter().map(undertaken).collect::<Result<Vec<_>, Fault>>()
        };
        read.await.map_err(Fault::of_read)
    }

    async fn parked(&self, of: Vec<ServiceName>) -> Result<Vec<ServiceName>, StoreError> {
        let inner = self.inner();
        let names: Vec<&str> = of.iter().map(ServiceName::as_str).collect();
        let read = async {
            let query = || sqlx::query(PARKED).bind(names.clone());
            let rows = inner.work.read("looking for messages to publish", inner.soon(), query).await?;
            rows.iter().map(|found| row::service(found, 0)).collect::<Result<Vec<_>, Fault>>()
        };
        read.await.map_err(Fault::of_read)
    }

    async fn park(&self, ids: Vec<MessageId>) -> Result<(), StoreError> {
        let inner = self.inner();
        let ids: Vec<Uuid> = ids.into_iter().map(|id| id.0).collect();
        let query = sqlx::query(PARK).bind(ids);
        // Done twice it is the same, so it is not unknown but simply not known to be done.
        inner.work.write("parking messages", inner.soon(), query).await.map(drop).map_err(Fault::of_read)
    }

    async fn claim_these(&self, wanted: Vec<Wanted>, deadline: Instant) -> Result<Vec<Claimed>, StoreError> {
        let inner = self.inner();
        claim::lapse(inner, deadline).await.map_err(Fault::of_read)?;
        let ids: Vec<Uuid> = wanted.iter().map(|one| one.id.0).collect();
        let leases: Vec<Duration> = wanted.iter().map(|one| one.lease).collect();
        let part = inner.parts.take();
        let query = sqlx::query(CLAIM_THESE)
            .bind(ids)
            .bind(leases.iter().copied().map(millis).collect::<Vec<_>>())
            .bind(inner.ports.node.0.cast_signed())
            .bind(part.number);
        let claimed = claim::grant(inner, deadline, query, &leases).await?;
        inner.parts.put(part);
        Ok(claimed)
    }
}
