//! The control state machine against a plain model: who exists, at which revision, and what a repeat is told.

use std::collections::BTreeMap;

use hub_core::control::{Command, HealthChange, Machine, Refusal, Registration, Reply, State};
use hub_core::delivery::RetryPolicy;
use hub_core::id::{InstanceId, NodeId, RequestId, ServiceName};
use hub_core::port::{Entry, MemoryMachine, Submitted};
use hub_core::registry::{CheckKind, DeliverySettings, Health, HealthCheck, Service};
use hub_core::time::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

const T: i64 = 1_800_000_000_000;
const MINUTE: i64 = 60_000;
const DAY: i64 = 86_400_000;

/// A command in small numbers.
#[derive(Clone, Debug, PartialEq)]
enum Cmd {
    Found(u128),
    Admit { node: Option<u64>, incarnation: u128, port: u16 },
    Remove(u64),
    Drain(u64, bool),
    Register { name: u8, instances: BTreeMap<u8, (u8, u16)>, checked: bool, secret: u8, at: Option<u64> },
    Deregister(u8),
    DeregisterInstance(u8, u8),
    Pause(u8, bool),
    Maintenance(u8, u8, bool),
    Health(Vec<(u8, u8, u8, Health)>),
    Rotate(u8, u8),
}

impl Cmd {
    /// As the edge would send it again: with another secret.
    fn without_secret(&self) -> Self {
        let mut plain = self.clone();
        if let Self::Register { secret, .. } | Self::Rotate(_, secret) = &mut plain {
            *secret = 0;
        }
        plain
    }

    fn real(&self) -> Command {
        match self.clone() {
            Self::Found(cluster) => Command::Found { cluster },
            Self::Admit { node, incarnation, port } => Command::Admit {
                node: node.map(NodeId),
                incarnation,
                raft_addr: if port == 0 { "nowhere".into() } else { format!("n:{port}").into() },
                rest_url: "http://n:8200".into(),
                version: "1".into(),
            },
            Self::Remove(node) => Command::Remove { node: NodeId(node) },
            Self::Drain(node, draining) => Command::SetDraining { node: NodeId(node), draining },
            Self::Register { name, instances, checked, secret, at } => {
                let instance = |(id, (url, weight)): (u8, (u8, u16))| {
                    (instance_id(id), format!("{}/", url_of(url)).into(), weight)
                };
                let kind = if checked { CheckKind::Http } else { CheckKind::None };
                Command::Register(Box::new(Registration {
                    name: service_name(name),
                    version: None,
                    instances: instances.into_iter().map(instance).collect(),
                    delivery: DeliverySettings::default(),
                    retry: RetryPolicy::default(),
                    health_check: HealthCheck { kind, ..HealthCheck::default() },
                    message_types: Vec::new(),
                    metadata: None,
                    tags: Vec::new(),
                    fresh_secret: secret_of(secret).into(),
                    if_revision: at,
                }))
            }
            Self::Deregister(name) => Command::Deregister { service: service_name(name) },
            Self::DeregisterInstance(name, id) => {
                Command::DeregisterInstance { service: service_name(name), instance: instance_id(id) }
            }
            Self::Pause(name, paused) => Command::SetPaused { service: service_name(name), paused },
            Self::Maintenance(name, id, maintenance) => Command::SetMaintenance {
                service: service_name(name),
                instance: instance_id(id),
                maintenance,
            },
            Self::Health(changes) => {
                let change = |(name, id, url, health)| HealthChange {
                    service: service_name(name),
                    instance: instance_id(id),
                    url: url_of(url).into(),
                    health,
                };
                Command::SetHealth(changes.into_iter().map(change).collect())
            }
            Self::Rotate(name, secret) => {
                Command::RotateSecret { service: service_name(name), secret: secret_of(secret).into() }
            }
        }
    }
}

fn service_name(name: u8) -> ServiceName {
    format!("s{name}").parse().unwrap()
}

fn instance_id(id: u8) -> InstanceId {
    format!("i{id}").parse().unwrap()
}

fn url_of(url: u8) -> String {
    format!("http://10.0.0.{url}:9000")
}

fn secret_of(secret: u8) -> String {
    format!("whsec_{secret:024}")
}

#[derive(Clone, Debug, PartialEq)]
struct PlainInstance {
    url: String,
    weight: u16,
    health: Health,
    maintenance: bool,
    since: i64,
    registered: i64,
}

#[derive(Clone, Debug, PartialEq)]
struct PlainService {
    instances: BTreeMap<String, PlainInstance>,
    checked: bool,
    paused: bool,
    secrets: Vec<(String, i64, Option<i64>)>,
    revision: u64,
    created: i64,
    updated: i64,
}

/// `(incarnation, address, draining, joined)`.
type PlainMember = (u128, String, bool, i64);

#[derive(Clone, Debug, PartialEq)]
struct Plain {
    cluster: Option<u128>,
    clock: i64,
    revision: u64,
    last_node: u64,
    members: BTreeMap<u64, PlainMember>,
    services: BTreeMap<String, PlainService>,
}

fn plain_service(service: &Service) -> PlainService {
    let instances = service.instances.values().map(|instance| {
        let plain = PlainInstance {
            url: instance.url.to_string(),
            weight: instance.weight,
            health: instance.health,
            maintenance: instance.maintenance,
            since: instance.health_since.as_millis(),
            registered: instance.registered_at.as_millis(),
        };
        (instance.id.to_string(), plain)
    });
    let secrets = service.secrets.iter().map(|held| {
        (held.value.to_string(), held.created_at.as_millis(), held.valid_until.map(Timestamp::as_millis))
    });
    PlainService {
        instances: instances.collect(),
        checked: service.health_check.kind == CheckKind::Http,
        paused: service.paused,
        secrets: secrets.collect(),
        revision: service.revision,
        created: service.created_at.as_millis(),
        updated: service.updated_at.as_millis(),
    }
}

fn plain_state(state: &State) -> Plain {
    let members = state.members.values().map(|member| {
        let address = member.raft_addr.to_string();
        (member.id.0, (member.incarnation, address, member.draining, member.joined_at.as_millis()))
    });
    Plain {
        cluster: state.cluster,
        clock: state.clock.as_millis(),
        revision: state.revision,
        last_node: state.last_node.0,
        members: members.collect(),
        services: state.services.iter().map(|(name, held)| (name.to_string(), plain_service(held))).collect(),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Said {
    Done,
    Cluster(u128),
    Admitted(u64),
    Service(PlainService, bool, Option<String>),
    Changed(u32),
    No(&'static str),
    Revision(u64),
    Skipped,
}

fn plain_reply(reply: &Reply) -> Said {
    match reply {
        Reply::Done => Said::Done,
        Reply::Cluster(cluster) => Said::Cluster(*cluster),
        Reply::Admitted(node) => Said::Admitted(node.0),
        Reply::Service { service, created, secret } => {
            Said::Service(plain_service(service), *created, secret.as_ref().map(ToString::to_string))
        }
        Reply::Changed(count) => Said::Changed(*count),
        Reply::Refused(Refusal::Revision { current }) => Said::Revision(*current),
        Reply::Refused(refusal) => Said::No(match refusal {
            Refusal::NoService => "service",
            Refusal::NoInstance => "instance",
            Refusal::Invalid { .. } => "invalid",
            Refusal::NoNode => "node",
            Refusal::IdentityTaken => "taken",
            Refusal::RequestReused => "reused",
            _ => "full",
        }),
        Reply::Breaker(_) => Said::No("breaker"),
        Reply::Skipped => Said::Skipped,
    }
}

/// What is kept of an answer: a service by name.
#[derive(Clone, Debug)]
enum Kept {
    Said(Said),
    Service(String, bool, Option<String>),
}

struct Model {
    plain: Plain,
    requests: BTreeMap<u8, (Cmd, i64, Kept)>,
}

impl Model {
    fn new() -> Self {
        let plain = Plain {
            cluster: None,
            clock: 0,
            revision: 0,
            last_node: 0,
            members: BTreeMap::new(),
            services: BTreeMap::new(),
        };
        Self { plain, requests: BTreeMap::new() }
    }

    fn apply(&mut self, index: u64, now: i64, commands: &[(u8, Cmd)]) -> Vec<Said> {
        self.plain.clock = self.plain.clock.max(now);
        self.plain.revision = index;
        let clock = self.plain.clock;
        self.requests.retain(|_, (_, expires, _)| *expires > clock);
        let kept: Vec<Kept> = commands.iter().map(|(id, command)| self.answer(index, *id, command)).collect();
        kept.into_iter().map(|kept| self.say(kept)).collect()
    }

    fn say(&self, kept: Kept) -> Said {
        match kept {
            Kept::Said(said) => said,
            Kept::Service(name, created, secret) => match self.plain.services.get(&name) {
                None => Said::No("service"),
                Some(service) => {
                    let secret = secret.filter(|value| service.secrets.iter().any(|held| held.0 == *value));
                    Said::Service(service.clone(), created, secret)
                }
            },
        }
    }

    fn answer(&mut self, index: u64, id: u8, command: &Cmd) -> Kept {
        let same = command.without_secret();
        match self.requests.get(&id) {
            Some((first, _, kept)) if *first == same => return kept.clone(),
            Some(_) => return Kept::Said(Said::No("reused")),
            None => {}
        }
        let kept = self.perform(index, command).unwrap_or_else(Kept::Said);
        if id != 0 {
            self.requests.insert(id, (same, self.plain.clock + MINUTE, kept.clone()));
        }
        kept
    }

    fn perform(&mut self, index: u64, command: &Cmd) -> Result<Kept, Said> {
        let plain = &mut self.plain;
        match command {
            Cmd::Found(cluster) => Ok(Kept::Said(Said::Cluster(*plain.cluster.get_or_insert(*cluster)))),
            Cmd::Admit { node, incarnation, port } => admit(plain, index, *node, *incarnation, *port),
            Cmd::Remove(node) => match plain.members.remove(node) {
                Some(_) => Ok(Kept::Said(Said::Done)),
                None => Err(Said::No("node")),
            },
            Cmd::Drain(node, draining) => {
                plain.members.get_mut(node).ok_or(Said::No("node"))?.2 = *draining;
                Ok(Kept::Said(Said::Done))
            }
            Cmd::Deregister(name) => match plain.services.remove(&format!("s{name}")) {
                Some(_) => Ok(Kept::Said(Said::Done)),
                None => Err(Said::No("service")),
            },
            Cmd::Health(changes) => Ok(Kept::Said(Said::Changed(judge(plain, index, changes)))),
            Cmd::Register { name, instances, checked, secret, at } => {
                register(plain, index, *name, instances, *checked, *secret, *at)
            }
            Cmd::DeregisterInstance(name, id) => {
                change(plain, index, *name, |service, _| {
                    let gone = service.instances.remove(&format!("i{id}"));
                    gone.map(|_| ()).ok_or(Said::No("instance"))
                })?;
                Ok(Kept::Said(Said::Done))
            }
            Cmd::Pause(name, paused) => {
                change(plain, index, *name, |service, _| {
                    service.paused = *paused;
                    Ok(())
                })?;
                Ok(Kept::Service(format!("s{name}"), false, None))
            }
            Cmd::Maintenance(name, id, maintenance) => {
                change(plain, index, *name, |service, _| {
                    let instance = service.instances.get_mut(&format!("i{id}"));
                    instance.ok_or(Said::No("instance"))?.maintenance = *maintenance;
                    Ok(())
                })?;
                Ok(Kept::Service(format!("s{name}"), false, None))
            }
            Cmd::Rotate(name, secret) => {
                let value = secret_of(*secret);
                change(plain, index, *name, |service, clock| {
                    service.secrets.retain(|held| held.0 != value && held.2.is_none_or(|end| end > clock));
                    for held in &mut service.secrets {
                        held.2 = Some(held.2.unwrap_or(i64::MAX).min(clock + DAY));
                    }
                    if service.secrets.len() >= 5 {
                        return Err(Said::No("invalid"));
                    }
                    service.secrets.insert(0, (value.clone(), clock, None));
                    Ok(())
                })?;
                Ok(Kept::Service(format!("s{name}"), false, Some(value)))
            }
        }
    }
}

fn change(
    plain: &mut Plain,
    index: u64,
    name: u8,
    make: impl FnOnce(&mut PlainService, i64) -> Result<(), Said>,
) -> Result<(), Said> {
    let old = plain.services.get_mut(&format!("s{name}")).ok_or(Said::No("service"))?;
    let mut new = old.clone();
    make(&mut new, plain.clock)?;
    if new != *old {
        *old = PlainService { revision: index, updated: plain.clock, ..new };
    }
    Ok(())
}

fn admit(plain: &mut Plain, index: u64, node: Option<u64>, own: u128, port: u16) -> Result<Kept, Said> {
    if port == 0 {
        return Err(Said::No("invalid"));
    }
    let id = match node {
        Some(id) => match plain.members.get(&id) {
            Some(member) if member.0 != own => return Err(Said::No("taken")),
            Some(_) => id,
            None if plain.last_node == 0 && id != 0 && id != u64::MAX => id,
            None => return Err(Said::No("node")),
        },
        None => match plain.members.iter().find(|(_, member)| member.0 == own) {
            Some((id, _)) => *id,
            None => index.max(plain.last_node + 1),
        },
    };
    let (draining, joined) = plain.members.get(&id).map_or((false, plain.clock), |old| (old.2, old.3));
    plain.members.insert(id, (own, format!("n:{port}"), draining, joined));
    plain.last_node = plain.last_node.max(id);
    Ok(Kept::Said(Said::Admitted(id)))
}

fn register(
    plain: &mut Plain,
    index: u64,
    name: u8,
    instances: &BTreeMap<u8, (u8, u16)>,
    checked: bool,
    secret: u8,
    at: Option<u64>,
) -> Result<Kept, Said> {
    if instances.values().any(|(_, weight)| *weight == 0) {
        return Err(Said::No("invalid"));
    }
    let key = format!("s{name}");
    let clock = plain.clock;
    let current = plain.services.get(&key).map(|service| service.revision);
    if at.is_some() && at != current {
        return Err(Said::Revision(current.unwrap_or(0)));
    }
    let created = current.is_none();
    plain.services.entry(key.clone()).or_insert_with(|| PlainService {
        instances: BTreeMap::new(),
        checked,
        paused: false,
        secrets: vec![(secret_of(secret), clock, None)],
        revision: index,
        created: clock,
        updated: clock,
    });
    change(plain, index, name, |service, clock| {
        service.checked = checked;
        for (id, (url, weight)) in instances {
            let fresh = PlainInstance {
                url: url_of(*url),
                weight: *weight,
                health: Health::Passing,
                maintenance: false,
                since: clock,
                registered: clock,
            };
            let held = service.instances.entry(format!("i{id}")).or_insert_with(|| fresh.clone());
            held.weight = *weight;
            if held.url != fresh.url {
                (held.url, held.health, held.since) = (fresh.url, fresh.health, clock);
            }
        }
        for held in service.instances.values_mut() {
            if !checked && held.health != Health::Passing {
                (held.health, held.since) = (Health::Passing, clock);
            }
        }
        Ok(())
    })?;
    Ok(Kept::Service(key, created, created.then(|| secret_of(secret))))
}

fn judge(plain: &mut Plain, index: u64, changes: &[(u8, u8, u8, Health)]) -> u32 {
    let mut count = 0;
    for (name, id, url, health) in changes {
        let Some(service) = plain.services.get_mut(&format!("s{name}")) else { continue };
        let Some(held) = service.instances.get_mut(&format!("i{id}")) else { continue };
        if service.checked && held.url == url_of(*url) && held.health != *health {
            (held.health, held.since) = (*health, plain.clock);
            service.revision = index;
            count += 1;
        }
    }
    count
}

#[derive(Clone, Debug)]
enum Step {
    /// `(index step, time passed, commands)`; the flag of a registration puts in the revision that the service has.
    Apply(u64, i64, Vec<(u8, Cmd, bool)>),
    /// Sends an earlier command under its request id again, with a new secret.
    Repeat(prop::sample::Index),
    Snapshot,
}

fn command() -> impl Strategy<Value = Cmd> {
    let node = || prop_oneof![8 => 1_u64..12, 1 => Just(0_u64), 1 => Just(u64::MAX)];
    let health = prop_oneof![Just(Health::Passing), Just(Health::Warning), Just(Health::Critical)];
    let change = (0_u8..2, 0_u8..3, 1_u8..3, health);
    let weight = prop_oneof![1 => Just(0_u16), 20 => 1_u16..4];
    let instances = prop::collection::btree_map(0_u8..3, (1_u8..3, weight), 0..3);
    let at = prop_oneof![3 => Just(None), 1 => (0_u64..30).prop_map(Some)];
    prop_oneof![
        1 => (1_u128..4).prop_map(Cmd::Found),
        4 => (prop::option::of(node()), 1_u128..4, 0_u16..6)
            .prop_map(|(node, incarnation, port)| Cmd::Admit { node, incarnation, port }),
        1 => node().prop_map(Cmd::Remove),
        2 => (node(), any::<bool>()).prop_map(|(node, draining)| Cmd::Drain(node, draining)),
        6 => (0_u8..2, instances, any::<bool>(), 1_u8..9, at).prop_map(
            |(name, instances, checked, secret, at)| Cmd::Register { name, instances, checked, secret, at }
        ),
        1 => (0_u8..2).prop_map(Cmd::Deregister),
        1 => (0_u8..2, 0_u8..3).prop_map(|(name, id)| Cmd::DeregisterInstance(name, id)),
        2 => (0_u8..2, any::<bool>()).prop_map(|(name, paused)| Cmd::Pause(name, paused)),
        2 => (0_u8..2, 0_u8..3, any::<bool>()).prop_map(|(name, id, on)| Cmd::Maintenance(name, id, on)),
        4 => prop::collection::vec(change, 0..5).prop_map(Cmd::Health),
        4 => (0_u8..2, 1_u8..9).prop_map(|(name, secret)| Cmd::Rotate(name, secret)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let passed = prop_oneof![
        6 => 0_i64..20_000,
        1 => Just(MINUTE),
        1 => Just(MINUTE - 1),
        1 => Just(DAY),
        1 => -100_000_i64..0,
    ];
    let commands = prop::collection::vec((0_u8..40, command(), any::<bool>()), 0..4);
    let step = prop_oneof![
        8 => (1_u64..3, passed, commands).prop_map(|(gap, passed, commands)| Step::Apply(gap, passed, commands)),
        3 => any::<prop::sample::Index>().prop_map(Step::Repeat),
        1 => Just(Step::Snapshot),
    ];
    prop::collection::vec(step, 1..50)
}

/// Runs machine and model side by side; `tamper` plants a mistake in what the machine gets.
fn run(steps: &[Step], tamper: fn(&mut Submitted<Command>)) -> Result<(), String> {
    let (mut machine, mut model) = (Machine::default(), Model::new());
    let mut sent: Vec<(u8, Cmd)> = Vec::new();
    let (mut index, mut now) = (0, T);
    for step in steps {
        let commands = match step {
            Step::Snapshot => {
                let copy = Machine::decode(machine.encode().into()).map_err(|error| error.to_string())?;
                if copy != machine {
                    return Err(format!("a copy differs: {:?}", copy.state()));
                }
                machine = copy;
                continue;
            }
            Step::Apply(gap, passed, commands) => {
                (index, now) = (index + gap, now + passed);
                commands.iter().map(|(id, command, fit)| (*id, fitted(&model, command, *fit))).collect()
            }
            Step::Repeat(which) if !sent.is_empty() => {
                let (id, mut command) = which.get(&sent).clone();
                if let Cmd::Register { secret, .. } | Cmd::Rotate(_, secret) = &mut command {
                    *secret += 10;
                }
                index += 1;
                vec![(id, command)]
            }
            Step::Repeat(_) => continue,
        };
        let before = machine.state().clock;
        compare(&mut machine, &mut model, (index, now), &commands, tamper)?;
        if machine.state().clock < before {
            return Err("the clock stepped back".to_owned());
        }
        sent.extend(commands);
    }
    Ok(())
}

/// With the revision that the service has, if it is to fit.
fn fitted(model: &Model, command: &Cmd, fit: bool) -> Cmd {
    let mut command = command.clone();
    if let Cmd::Register { name, at: at @ Some(_), .. } = &mut command
        && let Some(service) = model.plain.services.get(&format!("s{name}"))
        && fit
    {
        *at = Some(service.revision);
    }
    command
}

fn compare(
    machine: &mut Machine,
    model: &mut Model,
    (index, now): (u64, i64),
    commands: &[(u8, Cmd)],
    tamper: fn(&mut Submitted<Command>),
) -> Result<(), String> {
    let real = commands.iter().map(|(id, command)| {
        let request = RequestId(Uuid::from_u128(u128::from(*id)));
        let mut submitted = Submitted { request, command: command.real() };
        tamper(&mut submitted);
        submitted
    });
    let entry = Entry { index, term: 1, now: Timestamp::from_millis(now), commands: real.collect() };
    let said: Vec<Said> = machine.apply(&entry).iter().map(plain_reply).collect();
    let expected = model.apply(index, now, commands);
    if said != expected {
        return Err(format!("{commands:?}: said {said:?}, expected {expected:?}"));
    }
    let state = plain_state(machine.state());
    if state != model.plain {
        return Err(format!("{commands:?}: state {state:?}, expected {:?}", model.plain));
    }
    if machine.remembered().0 != model.requests.len() || !machine.requests_consistent() {
        return Err(format!("{commands:?}: {} requests remembered", machine.remembered().0));
    }
    Ok(())
}

proptest! {
    #[test]
    fn does_what_the_model_does(steps in steps()) {
        run(&steps, |_| {}).map_err(TestCaseError::fail)?;
    }
}

fn registration(at: Option<u64>) -> Cmd {
    Cmd::Register { name: 0, instances: BTreeMap::new(), checked: true, secret: 1, at }
}

#[test]
fn the_model_catches_a_machine_that_forgets_requests() {
    let register = || (1, registration(None), false);
    let steps = [Step::Apply(1, 0, vec![register()]), Step::Apply(1, 5, vec![register()])];
    assert_eq!(run(&steps, |_| {}), Ok(()));
    assert!(run(&steps, |submitted| submitted.request = RequestId(Uuid::nil())).is_err());
}

#[test]
fn the_model_catches_a_machine_that_ignores_if_match() {
    let steps = [
        Step::Apply(1, 0, vec![(1, registration(None), false)]),
        Step::Apply(1, 5, vec![(2, registration(Some(9)), false)]),
    ];
    assert_eq!(run(&steps, |_| {}), Ok(()));
    let ignores = |submitted: &mut Submitted<Command>| {
        if let Command::Register(registration) = &mut submitted.command {
            registration.if_revision = None;
        }
    };
    assert!(run(&steps, ignores).is_err());
}
