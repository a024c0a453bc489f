//! What can be proposed about circuit breakers.

use serde::{Deserialize, Serialize};

use crate::breaker::{Config, Mode, Order, Outcome, Report};
use crate::id::{NodeId, ServiceName};
use crate::time::Timestamp;

/// What an operator does to a breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BreakerChange {
    /// Who decides from now on.
    Mode {
        /// The mode.
        mode: Mode,
        /// When it ends; an hour from now if `None`. Not for auto.
        until: Option<Timestamp>,
    },
    /// Closed, in mode auto, all counters zero.
    Reset,
    /// Its own settings; the cluster's defaults again if `None`.
    Configure(Option<Config>),
}

/// A command about breakers. Verdicts and probes carry the epoch of the record they were made on: on another one they have
/// no effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BreakerCommand {
    /// A node's changed verdicts, of many targets at once; at most 10,000. Answers `Changed` with how many changed
    /// something: one on another epoch does not.
    Reports {
        /// Who reports: a member.
        node: NodeId,
        /// What it says.
        reports: Vec<Report>,
    },
    /// The leader's timer: breakers whose time has come, each at its epoch; at most 10,000. Answers `Changed`.
    Advance(Vec<(ServiceName, u64)>),
    /// A node that holds a due message asks for the probe. Answers `Breaker`.
    AskProbe {
        /// Of which target.
        service: ServiceName,
        /// Who asks: a member.
        node: NodeId,
        /// The breaker's epoch that it knows.
        epoch: u64,
    },
    /// The holder of the probe reports. Answers `Breaker`.
    ProbeDone {
        /// Of which target.
        service: ServiceName,
        /// Who reports.
        node: NodeId,
        /// The lease's epoch.
        epoch: u64,
        /// What came of it.
        outcome: Outcome,
    },
    /// An operator changes a breaker. Answers `Breaker`.
    Order {
        /// Whose.
        service: ServiceName,
        /// By whom, why, and at which epoch.
        order: Order,
        /// What.
        change: BreakerChange,
    },
    /// The settings of all breakers without their own. Answers `Done`.
    Defaults(Config),
}
