//! Commands about services and instances.

use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;

use super::requests::Told;
use super::{HealthChange, Refusal, Registration, State, breakers};
use crate::error::FieldError;
use crate::id::{InstanceId, ServiceName};
use crate::registry::{
    CheckKind, Health, Instance, MAX_INSTANCES, MAX_SERVICES, Secret, Service, TargetUrl, check_registration,
    check_secret,
};
use crate::time::Timestamp;

/// How long a replaced secret goes on signing.
const SECRET_OVERLAP: Duration = Duration::from_secs(24 * 3600);
/// Most secrets that sign at a time: each makes the signature header longer.
const MAX_SECRETS: usize = 5;
/// Most changes in one command.
const MAX_HEALTH_CHANGES: usize = 10_000;

fn refuse(error: FieldError) -> Refusal {
    Refusal::Invalid { field: error.pointer.into(), problem: error.detail.into() }
}

fn find(state: &State, name: &ServiceName) -> Result<Arc<Service>, Refusal> {
    state.services.get(name).cloned().ok_or(Refusal::NoService)
}

/// Puts a changed service in place of `old`; one that did not change keeps its revision.
fn put(state: &mut State, index: u64, old: &Service, mut new: Service) {
    if *old != new {
        new.revision = index;
        new.updated_at = state.clock;
        state.services.insert(new.name.clone(), Arc::new(new));
    }
}

const fn shown(name: ServiceName, created: bool, secret: Option<Arc<str>>) -> Told {
    Told::Service { name, created, secret }
}

/// `Register`: an upsert. Saying the same again changes nothing, not even the revision.
pub(super) fn register(state: &mut State, index: u64, registration: &Registration) -> Result<Told, Refusal> {
    if let Some(error) = check_registration(registration).into_iter().next() {
        return Err(refuse(error));
    }
    let name = &registration.name;
    let old = state.services.get(name).cloned();
    let current = old.as_ref().map_or(0, |service| service.revision);
    if registration.if_revision.is_some_and(|expected| expected != current || old.is_none()) {
        return Err(Refusal::Revision { current });
    }
    if let Some(old) = old {
        let new = updated(&old, registration, state.clock)?;
        put(state, index, &old, new);
        return Ok(shown(name.clone(), false, None));
    }
    if state.services.len() >= MAX_SERVICES {
        return Err(Refusal::RegistryFull);
    }
    let mut service = updated(&empty(registration, state.clock), registration, state.clock)?;
    service.revision = index;
    let secret = registration.fresh_secret.clone();
    state.services.insert(name.clone(), Arc::new(service));
    Ok(shown(name.clone(), true, Some(secret)))
}

fn empty(registration: &Registration, clock: Timestamp) -> Service {
    let secret = Secret { value: registration.fresh_secret.clone(), created_at: clock, valid_until: None };
    Service {
        name: registration.name.clone(),
        version: None,
        instances: OrdMap::new(),
        delivery: registration.delivery.clone(),
        retry: registration.retry.clone(),
        health_check: registration.health_check.clone(),
        message_types: Vec::new(),
        metadata: None,
        tags: Vec::new(),
        paused: false,
        secrets: vec![secret],
        revision: 0,
        created_at: clock,
        updated_at: clock,
    }
}

fn updated(old: &Service, registration: &Registration, clock: Timestamp) -> Result<Service, Refusal> {
    let mut service = Service {
        version: registration.version.clone(),
        delivery: registration.delivery.clone(),
        retry: registration.retry.clone(),
        health_check: registration.health_check.clone(),
        message_types: registration.message_types.clone(),
        metadata: registration.metadata.clone(),
        tags: registration.tags.clone(),
        ..old.clone()
    };
    for (id, url, weight) in &registration.instances {
        let url = url
            .parse::<TargetUrl>()
            .map_err(|error| refuse(FieldError::invalid("/instances", error.to_string())))?;
        let instance = upserted(service.instances.get(id), id, url.to_string().into(), *weight, clock);
        if service.instances.get(id) != Some(&instance) {
            service.instances.insert(id.clone(), instance);
        }
    }
    if service.instances.len() > MAX_INSTANCES {
        return Err(Refusal::RegistryFull);
    }
    if service.health_check.kind == CheckKind::None {
        // Nobody checks any more, so nobody would ever say that an instance is well again.
        forget_health(&mut service, clock);
    }
    Ok(service)
}

/// A new instance, or one that moved, starts passing, checked or not: a wrong guess costs a retry, while waiting for the
/// first good checks would hold back every message of a service that has just started. Maintenance is an operator's word
/// and stays.
fn upserted(
    old: Option<&Instance>,
    id: &InstanceId,
    url: Arc<str>,
    weight: u16,
    clock: Timestamp,
) -> Instance {
    match old {
        Some(old) if old.url == url => Instance { weight, ..old.clone() },
        Some(old) => Instance { url, weight, health: Health::Passing, health_since: clock, ..old.clone() },
        None => Instance {
            id: id.clone(),
            url,
            weight,
            health: Health::Passing,
            maintenance: false,
            health_since: clock,
            registered_at: clock,
        },
    }
}

fn forget_health(service: &mut Service, clock: Timestamp) {
    let unwell: Vec<InstanceId> = service
        .instances
        .values()
        .filter(|instance| instance.health != Health::Passing)
        .map(|instance| instance.id.clone())
        .collect();
    for id in unwell {
        if let Some(instance) = service.instances.get_mut(&id) {
            instance.health = Health::Passing;
            instance.health_since = clock;
        }
    }
}

/// `Deregister`.
pub(super) fn deregister(state: &mut State, name: &ServiceName) -> Result<Told, Refusal> {
    state.breakers.remove(name);
    state.services.remove(name).map(|_| Told::Done).ok_or(Refusal::NoService)
}

/// `DeregisterInstance`.
pub(super) fn deregister_instance(
    state: &mut State,
    index: u64,
    name: &ServiceName,
    instance: &InstanceId,
) -> Result<Told, Refusal> {
    let old = find(state, name)?;
    let mut new = (*old).clone();
    new.instances.remove(instance).ok_or(Refusal::NoInstance)?;
    put(state, index, &old, new);
    Ok(Told::Done)
}

/// `SetPaused`.
pub(super) fn set_paused(
    state: &mut State,
    index: u64,
    name: &ServiceName,
    paused: bool,
) -> Result<Told, Refusal> {
    let old = find(state, name)?;
    put(state, index, &old, Service { paused, ..(*old).clone() });
    Ok(shown(name.clone(), false, None))
}

/// `SetMaintenance`.
pub(super) fn set_maintenance(
    state: &mut State,
    index: u64,
    name: &ServiceName,
    id: &InstanceId,
    maintenance: bool,
) -> Result<Told, Refusal> {
    let old = find(state, name)?;
    let mut new = (*old).clone();
    new.instances.get_mut(id).ok_or(Refusal::NoInstance)?.maintenance = maintenance;
    put(state, index, &old, new);
    Ok(shown(name.clone(), false, None))
}

/// `SetHealth`: a change counts only if the instance is still where it was checked, and is still checked.
pub(super) fn set_health(state: &mut State, index: u64, changes: &[HealthChange]) -> Result<Told, Refusal> {
    if changes.len() > MAX_HEALTH_CHANGES {
        let detail = format!("must have at most {MAX_HEALTH_CHANGES} entries");
        return Err(refuse(FieldError::invalid("/changes", detail)));
    }
    let mut count: u32 = 0;
    for change in changes {
        let clock = state.clock;
        let Some(service) = state.services.get_mut(&change.service) else { continue };
        let applies = service.health_check.kind != CheckKind::None
            && service
                .instances
                .get(&change.instance)
                .is_some_and(|instance| instance.url == change.url && instance.health != change.health);
        if !applies {
            continue;
        }
        let service = Arc::make_mut(service);
        if let Some(instance) = service.instances.get_mut(&change.instance) {
            instance.health = change.health;
            instance.health_since = clock;
            service.revision = index;
            count = count.saturating_add(1);
        }
        if change.health == Health::Passing {
            breakers::looks_healthy(state, &change.service);
        }
    }
    Ok(Told::Changed(count))
}

/// `RotateSecret`: the new one signs from now on, the ones before it for another day.
pub(super) fn rotate_secret(
    state: &mut State,
    index: u64,
    name: &ServiceName,
    secret: &Arc<str>,
) -> Result<Told, Refusal> {
    if let Some(error) = check_secret(secret) {
        return Err(refuse(error));
    }
    let old = find(state, name)?;
    let mut new = (*old).clone();
    let until = state.clock.plus(SECRET_OVERLAP);
    new.secrets.retain(|held| held.valid_until.is_none_or(|end| end > state.clock) && held.value != *secret);
    for held in &mut new.secrets {
        held.valid_until = Some(held.valid_until.map_or(until, |end| end.min(until)));
    }
    if new.secrets.len() >= MAX_SECRETS {
        let detail =
            format!("was rotated too often: {MAX_SECRETS} secrets are valid; the oldest ends within a day");
        return Err(refuse(FieldError::invalid("/secret", detail)));
    }
    new.secrets.insert(0, Secret { value: secret.clone(), created_at: state.clock, valid_until: None });
    put(state, index, &old, new);
    Ok(shown(name.clone(), false, Some(secret.clone())))
}
