//! Commands about breakers as they stand in the log.

use serde::{Deserialize, Serialize};

use super::breaker::{ConfigV1, ModeV1, OrderV1, OutcomeV1, ReportV1};
use super::{
    KIND_BREAKER_ADVANCE, KIND_BREAKER_ASK_PROBE, KIND_BREAKER_DEFAULTS, KIND_BREAKER_ORDER,
    KIND_BREAKER_PROBE_DONE, KIND_BREAKER_REPORTS,
};
use crate::breaker::Report;
use crate::codec::{CodecError, Envelope, Kind, decode_body};
use crate::control::{BreakerChange, BreakerCommand};
use crate::id::{NodeId, ServiceName};
use crate::time::Timestamp;

#[derive(Serialize, Deserialize)]
struct ReportsV1 {
    node: NodeId,
    reports: Vec<ReportV1>,
}

#[derive(Serialize, Deserialize)]
struct AdvanceV1 {
    due: Vec<(ServiceName, u64)>,
}

#[derive(Serialize, Deserialize)]
struct AskProbeV1 {
    service: ServiceName,
    node: NodeId,
    epoch: u64,
}

#[derive(Serialize, Deserialize)]
struct ProbeDoneV1 {
    service: ServiceName,
    node: NodeId,
    epoch: u64,
    outcome: OutcomeV1,
}

#[derive(Serialize, Deserialize)]
enum ChangeV1 {
    Mode { mode: ModeV1, until: Option<Timestamp> },
    Reset,
    Configure(Option<ConfigV1>),
}

#[derive(Serialize, Deserialize)]
struct OrderedV1 {
    service: ServiceName,
    order: OrderV1,
    change: ChangeV1,
}

impl From<&BreakerChange> for ChangeV1 {
    fn from(change: &BreakerChange) -> Self {
        match change {
            BreakerChange::Mode { mode, until } => Self::Mode { mode: (*mode).into(), until: *until },
            BreakerChange::Reset => Self::Reset,
            BreakerChange::Configure(config) => Self::Configure(config.map(ConfigV1::from)),
        }
    }
}

impl From<ChangeV1> for BreakerChange {
    fn from(change: ChangeV1) -> Self {
        match change {
            ChangeV1::Mode { mode, until } => Self::Mode { mode: mode.into(), until },
            ChangeV1::Reset => Self::Reset,
            ChangeV1::Configure(config) => Self::Configure(config.map(Into::into)),
        }
    }
}

pub(super) fn encode(command: &BreakerCommand) -> Envelope {
    match command {
        BreakerCommand::Reports { node, reports } => {
            let reports = reports.iter().cloned().map(ReportV1::from).collect();
            Envelope::required(KIND_BREAKER_REPORTS, 1, &ReportsV1 { node: *node, reports })
        }
        BreakerCommand::Advance(due) => {
            Envelope::required(KIND_BREAKER_ADVANCE, 1, &AdvanceV1 { due: due.clone() })
        }
        BreakerCommand::AskProbe { service, node, epoch } => {
            let body = AskProbeV1 { service: service.clone(), node: *node, epoch: *epoch };
            Envelope::required(KIND_BREAKER_ASK_PROBE, 1, &body)
        }
        BreakerCommand::ProbeDone { service, node, epoch, outcome } => {
            let (service, outcome) = (service.clone(), (*outcome).into());
            let body = ProbeDoneV1 { service, node: *node, epoch: *epoch, outcome };
            Envelope::required(KIND_BREAKER_PROBE_DONE, 1, &body)
        }
        BreakerCommand::Order { service, order, change } => {
            let (order, change) = (order.clone().into(), change.into());
            let body = OrderedV1 { service: service.clone(), order, change };
            Envelope::required(KIND_BREAKER_ORDER, 1, &body)
        }
        BreakerCommand::Defaults(config) => {
            Envelope::required(KIND_BREAKER_DEFAULTS, 1, &ConfigV1::from(*config))
        }
    }
}

/// `None` if the kind is not about breakers.
pub(super) fn decode(kind: Kind, body: &[u8]) -> Result<Option<BreakerCommand>, CodecError> {
    Ok(Some(match kind {
        KIND_BREAKER_REPORTS => {
            let ReportsV1 { node, reports } = decode_body(body)?;
            BreakerCommand::Reports { node, reports: reports.into_iter().map(Report::from).collect() }
        }
        KIND_BREAKER_ADVANCE => {
            let AdvanceV1 { due } = decode_body(body)?;
            BreakerCommand::Advance(due)
        }
        KIND_BREAKER_ASK_PROBE => {
            let AskProbeV1 { service, node, epoch } = decode_body(body)?;
            BreakerCommand::AskProbe { service, node, epoch }
        }
        KIND_BREAKER_PROBE_DONE => {
            let ProbeDoneV1 { service, node, epoch, outcome } = decode_body(body)?;
            BreakerCommand::ProbeDone { service, node, epoch, outcome: outcome.into() }
        }
        KIND_BREAKER_ORDER => {
            let OrderedV1 { service, order, change } = decode_body(body)?;
            BreakerCommand::Order { service, order: order.into(), change: change.into() }
        }
        KIND_BREAKER_DEFAULTS => BreakerCommand::Defaults(decode_body::<ConfigV1>(body)?.into()),
        _ => return Ok(None),
    }))
}

pub(super) const fn size_hint(command: &BreakerCommand) -> usize {
    match command {
        BreakerCommand::Reports { reports, .. } => 64 + reports.len() * 256,
        BreakerCommand::Advance(due) => 64 + due.len() * 112,
        BreakerCommand::Order { .. } => 1_024,
        _ => 256,
    }
}
