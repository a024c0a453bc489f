//! Which instance of a service gets an attempt.

use crate::id::InstanceId;
use crate::registry::{Instance, Service};

/// Of two deliverable instances drawn by chance, each by its weight, the one with fewer attempts under way for its weight.
/// The one that failed the message before (`failed`) only if there is no other. `below` gives the chance: a number below its
/// bound. `None` when no instance may get deliveries.
#[must_use]
pub fn choose_instance<'a>(
    service: &'a Service,
    failed: Option<&InstanceId>,
    in_flight: impl Fn(&InstanceId) -> u32,
    below: impl Fn(u64) -> u64,
) -> Option<&'a Instance> {
    let fresh: Vec<&Instance> =
        service.deliverable().filter(|instance| Some(&instance.id) != failed).collect();
    let candidates = if fresh.is_empty() { service.deliverable().collect() } else { fresh };
    let draw = |candidates: &[&'a Instance]| {
        let total: u64 = candidates.iter().map(|instance| u64::from(instance.weight.max(1))).sum();
        let mut at = below(total);
        candidates.iter().position(|instance| {
            let weight = u64::from(instance.weight.max(1));
            let here = at < weight;
            at = at.saturating_sub(weight);
            here
        })
    };
    if candidates.len() < 2 {
        return candidates.first().copied();
    }
    let first = candidates.get(draw(&candidates)?).copied()?;
    let others: Vec<&Instance> =
        candidates.iter().copied().filter(|instance| instance.id != first.id).collect();
    let second = others.get(draw(&others)?).copied()?;
    // Fewer attempts for its weight.
    let load = |instance: &Instance, other: &Instance| {
        u64::from(in_flight(&instance.id)) * u64::from(other.weight.max(1))
    };
    Some(if load(second, first) < load(first, second) { second } else { first })
}
