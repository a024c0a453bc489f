//! The load generator: drives real nodes, receives what they deliver, and keeps a ledger of every message.

mod backlog;
mod connection;
mod error;
mod failover;
mod histogram;
mod isolation;
mod ledger;
mod load;
mod place;
mod receiver;
mod report;
mod stage;
mod subject;
mod usage;
mod verify;

pub use backlog::{BacklogOptions, BacklogReport, run as run_backlog};
pub use connection::{Connection, Origin};
pub use error::Error;
pub use failover::{FailoverOptions, FailoverReport, run as run_failover};
pub use histogram::Quantiles;
pub use isolation::{IsolationOptions, IsolationReport, run as run_isolation};
pub use ledger::{Ledger, SharedLedger, Totals};
pub use load::{Load, Outcome, Shot};
pub use place::{FileSystem, TempPlace};
pub use receiver::Receiver;
pub use report::{NodeUsage, Report};
pub use stage::{Stage, StageOptions};
pub use subject::{Subject, SubjectOptions, run};
