//! Which copy of a service gets an attempt. Pure.

use hub_core::id::InstanceId;
use hub_core::registry::{Instance, Service};

/// Two deliverable instances by chance (by weight), of them the one with fewer attempts under way; the one that failed
/// the message before only if there is no other. `below` gives the chance.
pub(super) fn choose<'a>(
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

#[cfg(test)]
mod tests {
    use hub_core::registry::Health;

    use super::*;
    use crate::worker::delivery::tests::service;

    fn id(name: &str) -> InstanceId {
        name.parse().unwrap()
    }

    #[test]
    fn of_two_the_less_busy_one_is_taken() {
        let service = service("combat", &["http://a", "http://b"]);
        for chance in 0..200 {
            let busy = |instance: &InstanceId| if *instance == id("i0") { 5 } else { 1 };
            let chosen = choose(&service, None, busy, |bound| chance % bound).unwrap();
            assert_eq!(chosen.id, id("i1"));
        }
    }

    #[test]
    fn the_one_that_failed_is_taken_only_if_there_is_no_other() {
        let mut service = service("combat", &["http://a", "http://b"]);
        let failed = id("i0");
        for chance in 0..200 {
            let chosen = choose(&service, Some(&failed), |_| 0, |bound| chance % bound).unwrap();
            assert_eq!(chosen.id, id("i1"));
        }
        service.instances.get_mut(&id("i1")).unwrap().maintenance = true;
        assert_eq!(choose(&service, Some(&failed), |_| 0, |_| 0).unwrap().id, failed);
    }

    #[test]
    fn critical_and_maintained_instances_get_nothing() {
        let mut service = service("combat", &["http://a", "http://b", "http://c"]);
        service.instances.get_mut(&id("i0")).unwrap().health = Health::Critical;
        service.instances.get_mut(&id("i1")).unwrap().maintenance = true;
        for chance in 0..300 {
            assert_eq!(choose(&service, None, |_| 0, |bound| chance % bound).unwrap().id, id("i2"));
        }
        service.instances.get_mut(&id("i2")).unwrap().maintenance = true;
        assert!(choose(&service, None, |_| 0, |_| 0).is_none());
    }
}
