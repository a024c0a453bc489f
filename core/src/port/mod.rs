//! The ports: traits through which the domain reaches storage, consensus, the network and the clock.

mod clock;
mod cluster;
mod delivery;
mod health;
mod message_store;
mod replicator;
mod shared_cache;
mod state_machine;

pub use clock::{Clock, IdSource};
pub use cluster::{
    Check, CheckStatus, ClusterControl, ClusterError, ClusterStatus, Group, GroupStatus, NodeStatus,
    QuorumCheck, Readiness, Role,
};
pub use delivery::{Claimed, DeliveryQueue, QueueSignal, Slots, Want};
pub use health::{CheckReport, CheckResult, HealthReports};
pub use message_store::{
    AcceptMode, AcceptRefusal, Accepted, Backlog, CancelOutcome, Consistency, DeadLetterOutcome,
    MessageStore, StoreError, SweepReport,
};
pub use replicator::{Committed, Leadership, ProposeError, ReadError, Replicator, Stamper};
pub use shared_cache::{CacheError, SharedCache, can_be_shared};
pub use state_machine::{
    AppliedMark, Entry, MemoryMachine, SnapshotFile, StateMachine, StateMachineError, Submitted,
};
