//! Which instance gets an attempt, and which node checks an instance, against the rules written out.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use hub_core::delivery::{RetryPolicy, choose_instance};
use hub_core::id::{InstanceId, NodeId, ServiceName};
use hub_core::registry::{DeliverySettings, Health, HealthCheck, Instance, Service, checker_of};
use hub_core::time::Timestamp;
use proptest::prelude::*;

/// Weight, health, maintenance, attempts under way.
type Plan = (u16, u8, bool, u32);

fn id(number: usize) -> InstanceId {
    format!("i{number:03}").parse().unwrap()
}

fn service(plans: &[Plan]) -> Service {
    let instances = plans.iter().enumerate().map(|(number, (weight, health, maintenance, _))| {
        let health = [Health::Passing, Health::Warning, Health::Critical][usize::from(*health)];
        let instance = Instance {
            id: id(number),
            url: format!("http://10.0.0.{number}").into(),
            weight: *weight,
            health,
            maintenance: *maintenance,
            health_since: Timestamp::EPOCH,
            registered_at: Timestamp::EPOCH,
        };
        (id(number), instance)
    });
    Service {
        name: "combat".parse().unwrap(),
        version: None,
        instances: instances.collect(),
        delivery: DeliverySettings::default(),
        retry: RetryPolicy::default(),
        health_check: HealthCheck::default(),
        message_types: Vec::new(),
        metadata: None,
        tags: Vec::new(),
        paused: false,
        secrets: Vec::new(),
        revision: 1,
        created_at: Timestamp::EPOCH,
        updated_at: Timestamp::EPOCH,
    }
}

/// Who may get deliveries: those that stand and are not critical; if these are fewer than 30 % but some, all that stand.
fn eligible(plans: &[Plan]) -> Vec<usize> {
    let standing: Vec<usize> = (0..plans.len()).filter(|at| !plans[*at].2).collect();
    let well: Vec<usize> = standing.iter().copied().filter(|at| plans[*at].1 != 2).collect();
    let protected = !well.is_empty() && (well.len() as f64) < 0.3 * standing.len() as f64;
    if protected { standing } else { well }
}

/// A ticket for each unit of weight: the drawn ticket's holder.
fn drawn(plans: &[Plan], among: &[usize], ticket: u64) -> usize {
    let tickets: Vec<usize> =
        among.iter().flat_map(|at| std::iter::repeat_n(*at, usize::from(plans[*at].0))).collect();
    tickets[usize::try_from(ticket).unwrap() % tickets.len()]
}

fn expected(plans: &[Plan], failed: Option<usize>, tickets: [u64; 2]) -> Option<usize> {
    let all = eligible(plans);
    let others: Vec<usize> = all.iter().copied().filter(|at| Some(*at) != failed).collect();
    let among = if others.is_empty() { all } else { others };
    match among.as_slice() {
        [] => None,
        [only] => Some(*only),
        _ => {
            let first = drawn(plans, &among, tickets[0]);
            let rest: Vec<usize> = among.iter().copied().filter(|at| *at != first).collect();
            let second = drawn(plans, &rest, tickets[1]);
            let load = |at: usize| f64::from(plans[at].3) / f64::from(plans[at].0);
            Some(if load(second) < load(first) { second } else { first })
        }
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    // Weights are powers of two, so that the model's shares are exact.
    (prop::sample::select(vec![1_u16, 2, 64, 512]), 0_u8..3, prop::bool::weighted(0.2), 0_u32..4)
}

proptest! {
    #[test]
    fn the_less_busy_of_two_drawn_by_weight(plans in prop::collection::vec(plan(), 0..12),
        failed in prop::option::of(0_usize..12), tickets: [u32; 2]) {
        let service = service(&plans);
        let busy: BTreeMap<InstanceId, u32> =
            plans.iter().enumerate().map(|(number, plan)| (id(number), plan.3)).collect();
        let left = RefCell::new(tickets.map(u64::from).to_vec());
        let below = |bound: u64| left.borrow_mut().remove(0) % bound;
        let failed_id = failed.map(id);
        let chosen = choose_instance(&service, failed_id.as_ref(), |id| busy[id], below);
        let wanted = expected(&plans, failed, tickets.map(u64::from));
        prop_assert_eq!(chosen.map(|instance| instance.id.clone()), wanted.map(id));
    }

    #[test]
    fn a_node_that_comes_or_goes_moves_only_its_own_checks(
        live in prop::collection::btree_set(1_u64..50, 0..8), newcomer in 1_u64..50, name in "[a-z]{1,8}",
        instance in "[a-z0-9]{1,8}") {
        let (name, instance): (ServiceName, InstanceId) = (name.parse().unwrap(), instance.parse().unwrap());
        let nodes: BTreeSet<NodeId> = live.iter().copied().map(NodeId).collect();
        let checker = checker_of(&name, &instance, &nodes);
        prop_assert_eq!(checker.is_none(), nodes.is_empty());
        prop_assert!(checker.is_none_or(|node| nodes.contains(&node)));
        for gone in &nodes {
            let rest: BTreeSet<NodeId> = nodes.iter().copied().filter(|node| node != gone).collect();
            let next = checker_of(&name, &instance, &rest);
            prop_assert!(Some(*gone) == checker || next == checker, "moved though its checker stayed");
        }
        let more: BTreeSet<NodeId> = nodes.iter().copied().chain([NodeId(newcomer)]).collect();
        let next = checker_of(&name, &instance, &more);
        prop_assert!(next == checker || next == Some(NodeId(newcomer)), "moved to another than the newcomer");
    }
}

#[test]
fn checks_spread_over_the_nodes() {
    let nodes: BTreeSet<NodeId> = [1, 2, 3].map(NodeId).into();
    let mut shares: BTreeMap<NodeId, usize> = BTreeMap::new();
    for number in 0..300 {
        let checker = checker_of(&"combat".parse().unwrap(), &id(number), &nodes).unwrap();
        *shares.entry(checker).or_default() += 1;
    }
    assert!(shares.len() == 3 && shares.values().all(|share| (60..140).contains(share)), "{shares:?}");
}
