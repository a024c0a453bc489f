//! Applying entries: what they touch is read in bulk, the commands then run in memory one after the other, and what changed
//! is written in bulk; all of it in one transaction.

mod claim;
mod insert;
mod load;
mod operator;
mod settle;
mod sweep;
mod work;
mod write;

use std::collections::BTreeSet;

use hub_core::delivery::Claim;
use hub_core::id::{MessageId, NodeId, RequestId, ServiceName};
use hub_core::port::{Claimed, Entry};
use hub_core::time::Timestamp;
use sqlx::SqliteConnection;

pub(super) use work::{Counters, Ledger};

use self::work::Work;
use super::command::{Command, Item, Reply};
use super::fault::Fault;

/// What follows from applying, for the delivery queue of this node.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Inserted under a claim of this node, with the claim's term.
    pub(super) claimed: Vec<Claimed>,
    /// Stamped with a claim of this node in this term, and not inserted.
    pub(super) refused: Vec<(MessageId, u64)>,
    /// Claims of this node, by the request that asked for them.
    pub(super) granted: Vec<(RequestId, Vec<Claim>)>,
    /// Have a message that became due.
    pub(super) due: BTreeSet<ServiceName>,
    /// The earliest moment at which a message that was written becomes due.
    pub(super) later: Option<Timestamp>,
    /// The highest term that was applied.
    pub(super) term: u64,
}

impl Effects {
    fn waits(&mut self, target: &ServiceName, due: Timestamp, clock: Timestamp) {
        if due > clock {
            self.later = Some(self.later.map_or(due, |other| other.min(due)));
        } else if !self.due.contains(target) {
            self.due.insert(target.clone());
        }
    }

    fn inserted(&mut self, node: NodeId, item: &Item) {
        if let Some(claim) = item.claim.as_ref().filter(|claim| claim.owner == node) {
            let message = item.message.to_message();
            self.claimed.push(Claimed { claim: claim.clone(), message, retry_count: 0 });
        }
    }

    fn not_inserted(&mut self, node: NodeId, item: &Item) {
        let own = item.claim.as_ref().filter(|claim| claim.owner == node);
        self.refused.extend(own.map(|claim| (claim.message, claim.term)));
    }
}

/// Applies entries inside the caller's transaction.
pub(super) async fn entries(
    connection: &mut SqliteConnection,
    ledger: &mut Ledger,
    node: NodeId,
    entries: Vec<Entry<Command>>,
) -> Result<(Vec<Vec<Reply>>, Effects), Fault> {
    let mut work = Work::new(connection, ledger, node);
    work.load(&entries).await?;
    let mut replies = Vec::with_capacity(entries.len());
    for entry in entries {
        work.ledger.clock = work.ledger.clock.max(entry.now);
        work.effects.term = work.effects.term.max(entry.term);
        let mut of_entry = Vec::with_capacity(entry.commands.len());
        for submitted in entry.commands {
            of_entry.push(match submitted.command {
                Command::Insert(insert) => Reply::Inserted(work.insert(insert)),
                Command::Cancel(id) => Reply::Cancelled(work.cancel(id, submitted.request)),
                Command::Replay(id) => Reply::DeadLetter(work.replay(id, submitted.request)),
                Command::Discard(id) => Reply::DeadLetter(work.discard(id, submitted.request)),
                Command::Settle(all) => Reply::Settled(work.settle(all).await?),
                Command::Claim(claim) => Reply::Claimed(work.claim(claim, submitted.request).await?),
                Command::Sweep(sweep) => Reply::Swept(work.sweep(sweep).await?),
            });
        }
        replies.push(of_entry);
    }
    work.flush().await?;
    work.write_counters().await?;
    Ok((replies, work.effects))
}
