//! Bytes of every released version of the control group's commands, replies and snapshots, as they lie in logs and files.
//! They are only decoded: what was written once must be readable for ever.
//!
//! `HUB_WRITE_GOLDEN=1` writes the files that are missing; it never touches one that is there.

#![cfg(test)]

use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hub_core::breaker::{
    Cause, Closed, Config, Counts, Mode, Order, Outcome, Phase, Probe, Record, Refused, Report, Stand,
    State as BreakerState, Transition, Vote, Who, Why,
};
use hub_core::codec::{Command as _, Decoded, Envelope, Reply as _};
use hub_core::control::{
    BreakerChange, BreakerCommand, Command, HealthChange, Machine, Member, Refusal, Registration, Reply,
    State,
};
use hub_core::delivery::RetryPolicy;
use hub_core::id::{InstanceId, NodeId, RequestId, ServiceName};
use hub_core::port::{Entry, MemoryMachine as _, Submitted};
use hub_core::registry::{CheckKind, DeliverySettings, Health, HealthCheck, Instance, Secret, Service};
use hub_core::time::Timestamp;
use uuid::Uuid;

const CLUSTER: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + millis)
}

fn name() -> ServiceName {
    "world.state-1".parse().unwrap()
}

fn instance_id(number: u8) -> InstanceId {
    format!("i-{number}").parse().unwrap()
}

fn secret(number: u8) -> Arc<str> {
    format!("whsec_{number:032}").into()
}

fn registration() -> Registration {
    Registration {
        name: name(),
        version: Some("1.2.3".into()),
        instances: vec![
            (instance_id(1), "https://10.0.0.1:9000/base".into(), 100),
            (instance_id(2), "http://world.example".into(), 1_000),
        ],
        delivery: DeliverySettings {
            path: "/in".into(),
            timeout_ms: 300_000,
            max_concurrency: 200,
            headers: vec![("x-api-key".into(), "k".into())],
            max_age_s: Some(86_400),
        },
        retry: RetryPolicy { base_ms: 5, cap_ms: 70_000, max_retries: Some(3), retry_on: vec![404, 409] },
        health_check: HealthCheck {
            kind: CheckKind::Http,
            path: "/ready".into(),
            interval_s: 3_600,
            timeout_s: 60,
            healthy: 4,
            unhealthy: 5,
        },
        message_types: vec!["a".into(), "Ä".into()],
        metadata: Some("{\"team\":\"x\"}".into()),
        tags: vec!["blue".into()],
        fresh_secret: secret(1),
        if_revision: Some(70_000),
    }
}

fn breaker_config() -> Config {
    Config {
        reset_timeout_s: 3_600,
        failure_threshold: 7,
        window_s: 600,
        min_calls: 300,
        failure_permille: 250,
        slow_ms: Some(70_000),
        slow_permille: 900,
        success_threshold: 3,
        max_open_s: 86_400,
    }
}

fn order() -> Order {
    Order { actor: "ops".into(), reason: Some("Wartung".into()), if_epoch: Some(70_000) }
}

fn breaker_commands() -> Vec<(&'static str, Command)> {
    let service = name();
    let counts = Counts { calls: 300, failures: 200, slow: 7, consecutive: 5 };
    let report = |stand, age: Option<u64>| Report {
        service: name(),
        epoch: 70_000,
        stand,
        counts,
        success_age_ms: age,
        failure_age_ms: age.map(|age| age + 1),
        retry_after_ms: age.map(|age| age + 2),
    };
    let unhealthy = |cause| report(Stand::Unhealthy { cause, since: 70_000 }, Some(300));
    let reports = vec![
        unhealthy(Cause::Consecutive),
        unhealthy(Cause::FailureRate),
        unhealthy(Cause::SlowRate),
        report(Stand::Healthy { success: Some(5) }, Some(5)),
        report(Stand::Healthy { success: None }, None),
    ];
    let probe_done =
        |outcome| BreakerCommand::ProbeDone { service: name(), node: NodeId(300), epoch: 70_000, outcome };
    let ordered = |change| BreakerCommand::Order { service: name(), order: order(), change };
    let mode = |mode, until| ordered(BreakerChange::Mode { mode, until });
    let bare = Order { actor: "ops".into(), reason: None, if_epoch: None };
    let commands = vec![
        ("breaker_reports", BreakerCommand::Reports { node: NodeId(300), reports }),
        ("breaker_advance", BreakerCommand::Advance(vec![(name(), 70_000)])),
        ("breaker_ask_probe", BreakerCommand::AskProbe { service: name(), node: NodeId(300), epoch: 70_000 }),
        ("breaker_probe_succeeded", probe_done(Outcome::Succeeded)),
        ("breaker_probe_failed", probe_done(Outcome::Failed { retry_after_ms: Some(70_000) })),
        ("breaker_probe_throttled", probe_done(Outcome::Throttled { retry_after_ms: None })),
        ("breaker_mode_auto", mode(Mode::Auto, None)),
        ("breaker_mode_open", mode(Mode::ForcedOpen, Some(at(9)))),
        ("breaker_mode_closed", mode(Mode::ForcedClosed, Some(at(9)))),
        ("breaker_mode_observe", mode(Mode::Observe, None)),
        ("breaker_configure", ordered(BreakerChange::Configure(Some(breaker_config())))),
        ("breaker_unconfigure", ordered(BreakerChange::Configure(None))),
        ("breaker_reset", BreakerCommand::Order { service, order: bare, change: BreakerChange::Reset }),
        ("breaker_defaults", BreakerCommand::Defaults(breaker_config())),
    ];
    commands.into_iter().map(|(name, command)| (name, Command::Breaker(command))).collect()
}

/// A record in `phase`, with a transition of every kind.
fn breaker_record(phase: Phase) -> Record {
    let whys = [
        Why::Votes { unhealthy: 2, objections: 1 },
        Why::WouldOpen { unhealthy: 2, objections: 1 },
        Why::ProbeGranted,
        Why::ProbesSucceeded,
        Why::ProbeFailed,
        Why::ProbeThrottled,
        Why::LeaseEnded,
        Why::ModeSet { mode: Mode::ForcedOpen },
        Why::ModeEnded { mode: Mode::Observe },
        Why::Reset,
        Why::Configured,
    ];
    let who = |number: u64| match number % 3 {
        0 => Who::Cluster,
        1 => Who::Node { node: NodeId(300) },
        _ => Who::Operator { actor: "ops".into(), reason: Some("Wartung".into()) },
    };
    let transition = |(number, why): (u64, Why)| Transition {
        at: at(3),
        epoch: number,
        from: BreakerState::HalfOpen,
        to: if number == 0 { BreakerState::Open } else { BreakerState::Closed },
        why,
        who: who(number),
    };
    Record {
        epoch: 70_000,
        phase,
        mode: Mode::ForcedClosed,
        mode_until: Some(at(9)),
        actor: Some("ops".into()),
        reason: Some("Wartung".into()),
        config: Some(breaker_config()),
        trip_count: 300,
        successes: 1,
        failure_count: 7,
        last_failure: Some(at(1)),
        last_success: Some(at(2)),
        closed_epoch: 300,
        transitions: (0..).zip(whys).map(transition).collect(),
    }
}

fn breaker_replies() -> Vec<(&'static str, Reply)> {
    let vote = |stand| Vote {
        at: at(3),
        stand,
        counts: Counts { calls: 300, failures: 200, slow: 7, consecutive: 5 },
        asked_until: Some(at(70_000)),
    };
    let votes = [
        (NodeId(1), vote(Stand::Unhealthy { cause: Cause::FailureRate, since: at(1) })),
        (NodeId(300), vote(Stand::Healthy { success: Some(at(2)) })),
    ];
    let closed = Closed { votes: votes.into(), decide_at: Some(at(250)), healthy_since: Some(at(2)) };
    let open = Phase::Open { opened_at: at(1), retry_at: at(60_000), asked_until: Some(at(50_000)) };
    let probe = Probe { node: NodeId(300), granted_at: at(2), begin_before: at(5), lease_until: at(9) };
    let half_open = Phase::HalfOpen { opened_at: at(1), probe };
    let record = |phase| Reply::Breaker(Arc::new(breaker_record(phase)));
    let refused = |refused| Reply::Refused(Refusal::Breaker(refused));
    vec![
        ("reply_breaker_closed", record(Phase::Closed(closed))),
        ("reply_breaker_open", record(open)),
        ("reply_breaker_half_open", record(half_open)),
        ("reply_breaker_blank", Reply::Breaker(Arc::default())),
        ("refused_breaker_stale", refused(Refused::Stale { current: 70_000 })),
        ("refused_breaker_not_open", refused(Refused::NotOpen)),
        ("refused_breaker_not_due", refused(Refused::NotDue { retry_at: at(9) })),
        ("refused_breaker_taken", refused(Refused::ProbeTaken { node: NodeId(300), until: at(9) })),
        ("refused_breaker_not_holder", refused(Refused::NotHolder)),
        ("refused_breaker_mode", refused(Refused::Mode { mode: Mode::Observe })),
        ("refused_breaker_not_closed", refused(Refused::NotClosed)),
        ("refused_breaker_no_evidence", refused(Refused::NoEvidence)),
    ]
}

fn commands() -> Vec<(&'static str, Command)> {
    let service = name();
    let changes = [Health::Passing, Health::Warning, Health::Critical].map(|health| HealthChange {
        service: name(),
        instance: instance_id(1),
        url: "http://10.0.0.1:9000".into(),
        health,
    });
    let bare = Registration {
        version: None,
        instances: Vec::new(),
        delivery: DeliverySettings::default(),
        retry: RetryPolicy::default(),
        health_check: HealthCheck::default(),
        message_types: Vec::new(),
        metadata: None,
        tags: Vec::new(),
        if_revision: None,
        ..registration()
    };
    let admit = |node| Command::Admit {
        node,
        incarnation: CLUSTER + 1,
        raft_addr: "10.0.0.9:8300".into(),
        rest_url: "http://10.0.0.9:8200".into(),
        version: "0.1.0".into(),
    };
    vec![
        ("found", Command::Found { cluster: CLUSTER }),
        ("admit_new", admit(None)),
        ("admit_known", admit(Some(NodeId(70_000)))),
        ("remove", Command::Remove { node: NodeId(300) }),
        ("set_draining", Command::SetDraining { node: NodeId(300), draining: true }),
        ("register", Command::Register(Box::new(registration()))),
        ("register_bare", Command::Register(Box::new(bare))),
        ("deregister", Command::Deregister { service: service.clone() }),
        (
            "deregister_instance",
            Command::DeregisterInstance { service: service.clone(), instance: instance_id(1) },
        ),
        ("set_paused", Command::SetPaused { service: service.clone(), paused: true }),
        (
            "set_maintenance",
            Command::SetMaintenance { service: service.clone(), instance: instance_id(1), maintenance: true },
        ),
        ("set_health", Command::SetHealth(changes.to_vec())),
        ("rotate_secret", Command::RotateSecret { service, secret: secret(2) }),
    ]
}

fn service() -> Service {
    let registration = registration();
    let instance = |number, url: &str, health, maintenance| Instance {
        id: instance_id(number),
        url: url.into(),
        weight: 100,
        health,
        maintenance,
        health_since: at(3),
        registered_at: at(2),
    };
    let instances = [
        instance(1, "https://10.0.0.1:9000/base", Health::Passing, true),
        instance(2, "http://world.example", Health::Warning, false),
        instance(3, "http://10.0.0.3", Health::Critical, false),
    ];
    Service {
        name: registration.name,
        version: registration.version,
        instances: instances.into_iter().map(|instance| (instance.id.clone(), instance)).collect(),
        delivery: registration.delivery,
        retry: registration.retry,
        health_check: registration.health_check,
        message_types: registration.message_types,
        metadata: registration.metadata,
        tags: registration.tags,
        paused: true,
        secrets: vec![
            Secret { value: secret(2), created_at: at(4), valid_until: None },
            Secret { value: secret(1), created_at: at(1), valid_until: Some(at(86_400_004)) },
        ],
        revision: 70_000,
        created_at: at(1),
        updated_at: at(5),
    }
}

fn replies() -> Vec<(&'static str, Reply)> {
    let shown = Reply::Service { service: Arc::new(service()), created: true, secret: Some(secret(2)) };
    let invalid = Refusal::Invalid { field: "/tags/0".into(), problem: "is there twice".into() };
    let refused = Reply::Refused;
    vec![
        ("reply_done", Reply::Done),
        ("reply_cluster", Reply::Cluster(CLUSTER)),
        ("reply_admitted", Reply::Admitted(NodeId(70_000))),
        ("reply_service", shown),
        ("reply_changed", Reply::Changed(300)),
        ("reply_skipped", Reply::Skipped),
        ("refused_no_service", refused(Refusal::NoService)),
        ("refused_no_instance", refused(Refusal::NoInstance)),
        ("refused_revision", refused(Refusal::Revision { current: 70_000 })),
        ("refused_registry_full", refused(Refusal::RegistryFull)),
        ("refused_invalid", refused(invalid)),
        ("refused_no_node", refused(Refusal::NoNode)),
        ("refused_identity_taken", refused(Refusal::IdentityTaken)),
        ("refused_request_table_full", refused(Refusal::RequestTableFull)),
        ("refused_request_reused", refused(Refusal::RequestReused)),
    ]
}

fn submitted(request: u128, command: Command) -> Submitted<Command> {
    Submitted { request: RequestId(Uuid::from_u128(request)), command }
}

/// What the machine of the snapshot was told, each as an entry of its own.
fn history() -> Vec<Submitted<Command>> {
    let kind = |wanted: &str| commands().into_iter().find(|(name, _)| *name == wanted).unwrap().1;
    let free = Registration { if_revision: None, ..registration() };
    vec![
        submitted(1, kind("found")),
        submitted(2, kind("admit_new")),
        submitted(3, kind("remove")),
        submitted(4, Command::Register(Box::new(free))),
        submitted(5, Command::SetHealth(Vec::new())),
        submitted(6, kind("set_paused")),
    ]
}

/// The state after [`history`], entry `n` at index `n` and time `at(n)`, written out by hand.
fn snapshot_state() -> State {
    let member = Member {
        id: NodeId(2),
        incarnation: CLUSTER + 1,
        raft_addr: "10.0.0.9:8300".into(),
        rest_url: "http://10.0.0.9:8200".into(),
        version: "0.1.0".into(),
        draining: false,
        joined_at: at(2),
    };
    let instance = |number, url: &str, weight| Instance {
        id: instance_id(number),
        url: url.into(),
        weight,
        health: Health::Passing,
        maintenance: false,
        health_since: at(4),
        registered_at: at(4),
    };
    let instances =
        [instance(1, "https://10.0.0.1:9000/base", 100), instance(2, "http://world.example", 1_000)];
    let service = Service {
        instances: instances.into_iter().map(|instance| (instance.id.clone(), instance)).collect(),
        secrets: vec![Secret { value: secret(1), created_at: at(4), valid_until: None }],
        revision: 6,
        created_at: at(4),
        updated_at: at(6),
        ..service()
    };
    State {
        cluster: Some(CLUSTER),
        clock: at(6),
        revision: 6,
        last_node: NodeId(2),
        members: std::iter::once((NodeId(2), member)).collect(),
        services: std::iter::once((name(), Arc::new(service))).collect(),
        ..State::default()
    }
}

fn snapshot_bytes() -> Vec<u8> {
    let mut machine = Machine::default();
    for (index, submitted) in (1..).zip(history()) {
        let now = at(index);
        machine.apply(&Entry { index: index as u64, term: 1, now, commands: vec![submitted] });
    }
    machine.encode()
}

fn golden(name: &str, make: impl FnOnce() -> Vec<u8>) -> Bytes {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/0.1.0");
    let path = folder.join(format!("{name}.bin"));
    if std::env::var_os("HUB_WRITE_GOLDEN").is_some() && !path.exists() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&path, make()).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into()
}

#[test]
fn commands_of_every_release_are_read() {
    for (name, expected) in commands().into_iter().chain(breaker_commands()) {
        let make = || {
            let mut out = BytesMut::new();
            expected.encode().write(RequestId(Uuid::from_u128(CLUSTER)), &mut out);
            out.to_vec()
        };
        let mut bytes = golden(name, make);
        let (request, envelope) = Envelope::read(&mut bytes).unwrap();
        assert_eq!(request, RequestId(Uuid::from_u128(CLUSTER)), "{name}");
        assert!(bytes.is_empty(), "{name}");
        assert_eq!(Command::decode(envelope).unwrap(), Decoded::Value(expected), "{name}");
    }
}

#[test]
fn replies_of_every_release_are_read() {
    for (name, expected) in replies().into_iter().chain(breaker_replies()) {
        let bytes = golden(name, || expected.encode());
        assert_eq!(Reply::decode(&bytes).unwrap(), expected, "{name}");
    }
}

#[test]
fn snapshots_of_every_release_are_read() {
    let mut machine = Machine::decode(golden("snapshot", snapshot_bytes)).unwrap();
    assert_eq!(*machine.state(), snapshot_state());
    assert_eq!(machine.remembered().0, history().len());
    assert!(machine.requests_consistent());
    // What was told before is told again, and another command under a remembered id is not taken for a repeat.
    let service = machine.state().services.get(&name()).unwrap().clone();
    let service = |created, secret| Reply::Service { service: service.clone(), created, secret };
    let expected = vec![
        Reply::Cluster(CLUSTER),
        Reply::Admitted(NodeId(2)),
        Reply::Refused(Refusal::NoNode),
        service(true, Some(secret(1))),
        Reply::Changed(0),
        service(false, None),
        Reply::Refused(Refusal::RequestReused),
    ];
    let mut commands = history();
    commands.push(submitted(6, Command::Deregister { service: name() }));
    assert_eq!(machine.apply(&Entry { index: 7, term: 2, now: at(7), commands }), expected);
}

/// [`history`], then settings of all breakers, and one that is forced open.
fn snapshot_with_breakers() -> Vec<u8> {
    let mut machine = Machine::decode(golden("snapshot", snapshot_bytes)).unwrap();
    let order = Order { if_epoch: None, ..order() };
    let change = BreakerChange::Mode { mode: Mode::ForcedOpen, until: Some(at(60_000)) };
    let commands = [
        BreakerCommand::Defaults(breaker_config()),
        BreakerCommand::Order { service: name(), order, change },
    ];
    for (index, command) in (7..).zip(commands) {
        let commands = vec![submitted(u128::from(index), Command::Breaker(command))];
        machine.apply(&Entry { index, term: 1, now: at(i64::try_from(index).unwrap()), commands });
    }
    machine.encode()
}

#[test]
fn snapshots_with_breakers_are_read() {
    let machine = Machine::decode(golden("snapshot_v2", snapshot_with_breakers)).unwrap();
    let record = Record {
        epoch: 1,
        phase: Phase::Open { opened_at: at(8), retry_at: at(60_000), asked_until: None },
        mode: Mode::ForcedOpen,
        mode_until: Some(at(60_000)),
        actor: Some("ops".into()),
        reason: Some("Wartung".into()),
        transitions: std::iter::once(Transition {
            at: at(8),
            epoch: 1,
            from: BreakerState::Closed,
            to: BreakerState::Open,
            why: Why::ModeSet { mode: Mode::ForcedOpen },
            who: Who::Operator { actor: "ops".into(), reason: Some("Wartung".into()) },
        })
        .collect(),
        ..Record::default()
    };
    let expected = State {
        clock: at(8),
        revision: 8,
        breakers: std::iter::once((name(), Arc::new(record))).collect(),
        breaker_defaults: breaker_config(),
        ..snapshot_state()
    };
    assert_eq!(*machine.state(), expected);
    assert_eq!(machine.remembered().0, history().len() + 2);
    assert_eq!(Machine::decode(machine.encode().into()).unwrap(), machine);
}

#[test]
fn a_cut_snapshot_is_an_error() {
    for whole in [golden("snapshot", snapshot_bytes), golden("snapshot_v2", snapshot_with_breakers)] {
        for end in 0..whole.len() {
            assert!(Machine::decode(whole.slice(..end)).is_err(), "cut at {end}");
        }
    }
}
