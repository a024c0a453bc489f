//! May this target be called now, as far as its breaker is concerned?

use super::{Config, Local, Mode, Phase, Record};
use crate::id::NodeId;
use crate::time::Timestamp;

/// What a delivery goes out as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// One of many.
    Plain,
    /// The probe that the cluster leased to this node.
    Probe {
        /// The lease's epoch.
        epoch: u64,
    },
    /// One that this node tries by itself: its own verdict is unhealthy, or there is no quorum to ask.
    Trial,
}

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// Deliver. Probes and trials one at a time: see [`Local::begin`].
    Go(Pass),
    /// Nothing may go out, but who holds a due message may ask for the probe at this epoch.
    Ask {
        /// The epoch to ask at.
        epoch: u64,
    },
    /// Nothing may go out before then: messages stay where they are and no attempt is spent.
    ParkedUntil(Timestamp),
}

impl Local {
    /// Decides from the replicated record (`None`: the service has none), this node's own state and its time. `quorum`
    /// says whether proposals can succeed at the moment: without, the last record stands, and this node may try by itself.
    #[must_use]
    pub fn gate(
        &self,
        record: Option<&Record>,
        me: NodeId,
        quorum: bool,
        defaults: &Config,
        now: Timestamp,
    ) -> Gate {
        let blank = Record::default();
        let record = record.unwrap_or(&blank);
        let config = record.settings(defaults);
        match &record.phase {
            Phase::Closed(_) if record.mode != Mode::Auto || self.latch.is_none() => Gate::Go(Pass::Plain),
            Phase::Closed(_) => self.trial(&config, now),
            Phase::Open { retry_at, .. } if *retry_at > now => Gate::ParkedUntil(*retry_at),
            Phase::Open { .. } => self.ask(record.epoch, quorum, &config, now),
            Phase::HalfOpen { probe, .. } if probe.lease_until <= now => {
                self.ask(record.epoch, quorum, &config, now)
            }
            Phase::HalfOpen { probe, .. } => {
                let mine = probe.node == me && self.probed != Some(record.epoch);
                if mine && !self.trying && now < probe.begin_before {
                    Gate::Go(Pass::Probe { epoch: record.epoch })
                } else {
                    Gate::ParkedUntil(probe.lease_until)
                }
            }
        }
    }

    fn ask(&self, epoch: u64, quorum: bool, config: &Config, now: Timestamp) -> Gate {
        match self.ask_again_at {
            _ if !quorum => self.trial(config, now),
            Some(at) if at > now => Gate::ParkedUntil(at),
            _ => Gate::Ask { epoch },
        }
    }

    fn trial(&self, config: &Config, now: Timestamp) -> Gate {
        match self.trial_at {
            Some(at) if at > now => Gate::ParkedUntil(at),
            // It has taken longer than the pause between two trials: look again after another.
            _ if self.trying => Gate::ParkedUntil(now.plus(config.reset_timeout())),
            _ => Gate::Go(Pass::Trial),
        }
    }
}
