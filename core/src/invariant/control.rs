//! What holds of the control state at any time, and from one entry to the next.

use imbl::ordmap::DiffItem;

use super::{breaker, breaker_step, ensure};
use crate::control::{Machine, State};
use crate::registry::{CheckKind, Health, MAX_INSTANCES, MAX_SERVICES, Service, TargetUrl};

/// Time and revision never step back, no node id is given twice, and breakers move in order. Cheap: compares a few numbers,
/// and the breakers that changed.
pub fn control_step(before: &State, after: &State) -> Result<(), String> {
    ensure(before.clock <= after.clock, || format!("clock back from {} to {}", before.clock, after.clock))?;
    ensure(before.revision <= after.revision, || {
        format!("revision back from {} to {}", before.revision, after.revision)
    })?;
    ensure(before.last_node <= after.last_node, || "last node id went back".into())?;
    ensure(before.cluster.is_none() || before.cluster == after.cluster, || "cluster was renamed".into())?;
    for change in before.breakers.diff(&after.breakers) {
        match change {
            DiffItem::Add(name, record) => {
                breaker(record, after.clock).map_err(|problem| format!("{name}: {problem}"))?
            }
            DiffItem::Update { old, new } => {
                let step = breaker_step(old.1, new.1).and_then(|()| breaker(new.1, after.clock));
                step.map_err(|problem| format!("{}: {problem}", new.0))?;
            }
            DiffItem::Remove(..) => {}
        }
    }
    Ok(())
}

/// The whole state and the request table are sound. Walks through everything.
pub fn control(machine: &Machine) -> Result<(), String> {
    let state = machine.state();
    let (remembered, most) = machine.remembered();
    ensure(remembered <= most, || format!("{remembered} requests are remembered, at most {most} may be"))?;
    ensure(machine.requests_consistent(), || "request table and its queue differ".into())?;
    for (id, member) in &state.members {
        ensure(*id == member.id && *id <= state.last_node, || format!("member {id} was never admitted"))?;
    }
    ensure(state.services.len() <= MAX_SERVICES, || "too many services".into())?;
    for (name, held) in &state.services {
        ensure(*name == held.name, || format!("{name} holds {}", held.name))?;
        service(state, held).map_err(|problem| format!("{name}: {problem}"))?;
    }
    ensure(state.breaker_defaults.check().is_empty(), || {
        "default settings of breakers are out of range".into()
    })?;
    for (name, record) in &state.breakers {
        ensure(state.services.contains_key(name), || format!("{name} has a breaker, and is no service"))?;
        let own = record.config.is_none_or(|config| config.check().is_empty());
        ensure(own, || format!("{name}: settings are out of range"))?;
        breaker(record, state.clock).map_err(|problem| format!("{name}: {problem}"))?;
    }
    Ok(())
}

fn service(state: &State, service: &Service) -> Result<(), String> {
    ensure((1..=state.revision).contains(&service.revision), || {
        format!("revision {} is not of the past", service.revision)
    })?;
    let in_order = service.created_at <= service.updated_at && service.updated_at <= state.clock;
    ensure(in_order, || "was changed before it was made, or in the future".into())?;
    ensure(service.instances.len() <= MAX_INSTANCES, || "too many instances".into())?;
    for (id, instance) in &service.instances {
        let normal = instance.url.parse::<TargetUrl>().is_ok_and(|url| url.to_string() == *instance.url);
        ensure(*id == instance.id && normal, || format!("instance {id} is misplaced"))?;
        ensure((1..=1_000).contains(&instance.weight), || format!("weight of {id}"))?;
        ensure(service.health_check.kind != CheckKind::None || instance.health == Health::Passing, || {
            format!("{id} is not checked, and not passing")
        })?;
    }
    let mut secrets = service.secrets.iter();
    let newest = secrets.next().is_some_and(|secret| secret.valid_until.is_none());
    ensure(newest && secrets.all(|secret| secret.valid_until.is_some()), || {
        "must have one secret without an end, the newest".into()
    })
}
