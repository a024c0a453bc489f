//! Commands about circuit breakers. A service has a record only after something happened to its breaker.

use std::sync::Arc;
use std::time::Duration;

use super::requests::Told;
use super::{BreakerChange, BreakerCommand, Refusal, State};
use crate::breaker::{Config, Context, Denied, Order, Outcome, Record, Report};
use crate::error::FieldError;
use crate::id::{NodeId, ServiceName};
use crate::time::Timestamp;

/// Most reports, and most due breakers, in one command.
const MAX_AT_ONCE: usize = 10_000;

fn refuse(error: FieldError) -> Refusal {
    Refusal::Invalid { field: error.pointer.into(), problem: error.detail.into() }
}

fn check_count(count: usize) -> Result<(), Refusal> {
    if count <= MAX_AT_ONCE {
        return Ok(());
    }
    Err(refuse(FieldError::invalid("/breakers", format!("must have at most {MAX_AT_ONCE} entries"))))
}

/// Changes one record, and keeps what became of it: also when `change` refuses, since time may have moved it. A service
/// without a record gets one only if something changed.
fn with<T>(
    state: &mut State,
    service: &ServiceName,
    change: impl FnOnce(&mut Record, &Context<'_>) -> T,
) -> Result<T, Refusal> {
    let Some(registered) = state.services.get(service) else { return Err(Refusal::NoService) };
    let context = Context {
        service,
        clock: state.clock,
        nodes: state.members.len(),
        delivery_timeout: Duration::from_millis(registered.delivery.timeout_ms.into()),
        defaults: &state.breaker_defaults,
    };
    let before = state.breakers.get(service);
    let mut record = before.map(|record| (**record).clone()).unwrap_or_default();
    let told = change(&mut record, &context);
    let changed = match before {
        Some(before) => **before != record,
        None => record != Record::default(),
    };
    if changed {
        state.breakers.insert(service.clone(), Arc::new(record));
    }
    Ok(told)
}

fn check_member(state: &State, node: NodeId) -> Result<(), Refusal> {
    if state.members.contains_key(&node) { Ok(()) } else { Err(Refusal::NoNode) }
}

/// Any of them.
pub(super) fn perform(state: &mut State, command: &BreakerCommand) -> Result<Told, Refusal> {
    match command {
        BreakerCommand::Reports { node, reports: all } => reports(state, *node, all),
        BreakerCommand::Advance(due) => advance(state, due),
        BreakerCommand::AskProbe { service, node, epoch } => ask_probe(state, service, *node, *epoch),
        BreakerCommand::ProbeDone { service, node, epoch, outcome } => {
            probe_done(state, service, *node, *epoch, *outcome)
        }
        BreakerCommand::Order { service, order: by, change } => order(state, service, by, change),
        BreakerCommand::Defaults(config) => set_defaults(state, config),
    }
}

/// `Reports`: what is stale or says nothing new is left out of the count.
fn reports(state: &mut State, node: NodeId, reports: &[Report]) -> Result<Told, Refusal> {
    check_count(reports.len())?;
    check_member(state, node)?;
    let mut count: u32 = 0;
    for report in reports {
        let took = with(state, &report.service, |record, cx| record.report(cx, node, report));
        count = count.saturating_add(u32::from(matches!(took, Ok(Ok(true)))));
    }
    Ok(Told::Changed(count))
}

/// `Advance`.
fn advance(state: &mut State, due: &[(ServiceName, u64)]) -> Result<Told, Refusal> {
    check_count(due.len())?;
    let mut count: u32 = 0;
    for (service, epoch) in due {
        let moved = with(state, service, |record, cx| record.advance(cx, *epoch));
        count = count.saturating_add(u32::from(moved == Ok(true)));
    }
    Ok(Told::Changed(count))
}

/// `AskProbe`.
fn ask_probe(state: &mut State, service: &ServiceName, node: NodeId, epoch: u64) -> Result<Told, Refusal> {
    check_member(state, node)?;
    with(state, service, |record, cx| record.ask_probe(cx, node, epoch))?.map_err(Refusal::Breaker)?;
    Ok(Told::Breaker(service.clone()))
}

/// `ProbeDone`.
fn probe_done(
    state: &mut State,
    service: &ServiceName,
    node: NodeId,
    epoch: u64,
    outcome: Outcome,
) -> Result<Told, Refusal> {
    with(state, service, |record, cx| record.probe_done(cx, node, epoch, outcome))?
        .map_err(Refusal::Breaker)?;
    Ok(Told::Breaker(service.clone()))
}

/// `Order`.
fn order(
    state: &mut State,
    service: &ServiceName,
    order: &Order,
    change: &BreakerChange,
) -> Result<Told, Refusal> {
    let done = with(state, service, |record, cx| match change {
        BreakerChange::Mode { mode, until } => record.set_mode(cx, order, *mode, *until),
        BreakerChange::Reset => record.reset(cx, order),
        BreakerChange::Configure(config) => record.configure(cx, order, *config),
    })?;
    done.map_err(|denied| match denied {
        Denied::Refused(refused) => Refusal::Breaker(refused),
        Denied::Field(error) => refuse(error),
    })?;
    Ok(Told::Breaker(service.clone()))
}

/// `Defaults`: for all services without settings of their own. Nodes judge anew by them; what is decided stands.
fn set_defaults(state: &mut State, config: &Config) -> Result<Told, Refusal> {
    if let Some(error) = config.check().into_iter().next() {
        return Err(refuse(error));
    }
    state.breaker_defaults = *config;
    Ok(Told::Done)
}

/// A removed node's votes go with it.
pub(super) fn forget_node(state: &mut State, node: NodeId) {
    let voted: Vec<ServiceName> = state
        .breakers
        .iter()
        .filter(|(_, record)| record.has_vote_of(node))
        .map(|(service, _)| service.clone())
        .collect();
    let clock = state.clock;
    for service in voted {
        if let Some(record) = state.breakers.get_mut(&service) {
            Arc::make_mut(record).forget_node(clock, node);
        }
    }
}

/// An instance's check turned green.
pub(super) fn looks_healthy(state: &mut State, service: &ServiceName) {
    let clock: Timestamp = state.clock;
    if let Some(record) = state.breakers.get_mut(service)
        && record.waits_past(clock)
    {
        Arc::make_mut(record).looks_healthy(clock);
    }
}
