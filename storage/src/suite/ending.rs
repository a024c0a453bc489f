//! Ends that time brings.

use std::time::Duration;

use hub_core::id::ServiceName;
use hub_core::message::Status;
use hub_core::port::{Consistency, SweepReport};

use super::kit::{LEASE, MAX_AGE};
use super::{Failure, Stage, Verdict, ensure, ensure_eq};

const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

impl Stage {
    async fn sweep(&self, limit: u32) -> Result<SweepReport, Failure> {
        let registered = |name: &ServiceName| name.as_str() != "gone";
        Ok(self.store.sweep(&registered, RETENTION, limit, self.deadline()).await?)
    }
}

pub(super) async fn expires(stage: &Stage) -> Verdict {
    let mut ids = Vec::new();
    for (number, target) in [(1, "one"), (2, "two"), (3, "three")] {
        let mut message = stage.message(number, "sender", target)?;
        message.expires_at = Some(stage.now().plus(Duration::from_secs(10)));
        ids.push(stage.accept(message).await?.id);
    }
    let claimed = stage.claim_one("three").await?;
    let report = stage.sweep(100).await?;
    ensure_eq!((report.expired, report.more), (0, false), "before the time");
    ensure_eq!(report.next, Some(stage.now().plus(Duration::from_secs(10))), "the next end");
    stage.advance(Duration::from_secs(10)).await?;
    ensure!(stage.claim("two", 1).await?.is_empty(), "an attempt would start after expires_at");
    stage.sweep(100).await?;
    let mut states = Vec::new();
    for id in &ids {
        states.push(stage.status(*id).await?);
    }
    ensure_eq!(states, [Status::Expired, Status::Expired, Status::Delivering], "states");
    ensure!(stage.deliver(&claimed).await?, "an attempt that started in time may end later");
    ensure_eq!(stage.backlog("one").await?.depth, 0, "depth");
    Ok(())
}

pub(super) async fn buries_the_old(stage: &Stage) -> Verdict {
    let old = stage.accept(stage.message(1, "sender", "here")?).await?.id;
    let lost = stage.accept(stage.message(2, "sender", "gone")?).await?.id;
    stage.advance(MAX_AGE.saturating_sub(LEASE)).await?;
    let held = stage.accept(stage.message(3, "sender", "held")?).await?.id;
    stage.claim_one("held").await?;
    stage.advance(LEASE).await?;
    let young = stage.accept(stage.message(4, "sender", "here")?).await?.id;
    let mut buried = 0;
    for _ in 0..4 {
        buried += stage.sweep(1).await?.buried;
    }
    ensure_eq!(buried, 2, "buried");
    for (id, reason) in [(old, "too_old"), (lost, "no_target")] {
        let record = stage.get(id).await?;
        ensure_eq!(record.status, Status::DeadLetter, "state");
        ensure_eq!(record.dead_reason.as_deref(), Some(reason), "dead_reason");
    }
    ensure_eq!(stage.status(young).await?, Status::Pending, "a young one");
    ensure_eq!(stage.status(held).await?, Status::Pending, "one whose lease ran out");
    ensure_eq!(stage.backlog("here").await?.dead_letters, 1, "counter");
    Ok(())
}

pub(super) async fn prunes_what_is_final(stage: &Stage) -> Verdict {
    let ids = stage.send(0..5, "target").await?;
    for one in stage.claim("target", 4).await? {
        ensure!(stage.deliver(&one).await?, "a delivery");
    }
    stage.advance(RETENTION.saturating_sub(Duration::from_millis(1))).await?;
    let report = stage.sweep(100).await?;
    ensure_eq!((report.pruned, report.buried), (0, 1), "before the retention has passed");
    stage.advance(Duration::from_millis(1)).await?;
    let report = stage.sweep(3).await?;
    ensure_eq!((report.pruned, report.more), (3, true), "the first part");
    let report = stage.sweep(3).await?;
    ensure_eq!((report.pruned, report.more), (1, false), "the rest");
    let mut left = 0;
    for id in ids {
        left +=
            usize::from(stage.store.get(id, Consistency::Linearizable, stage.deadline()).await?.is_some());
    }
    ensure_eq!(left, 1, "the dead letter stays");
    ensure_eq!(stage.backlog("target").await?.delivered_total, 4, "totals stay");
    Ok(())
}
