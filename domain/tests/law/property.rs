//! Whatever is asked in whatever order, the invariants hold (the world checks them after every
//! entry), two nodes get the same state, and a retry has one effect.

use std::sync::Arc;

use novacron_domain::{
    Applier, Revision, State,
    alert::{AlertCommand, Rule, Severity, Signal, Test},
    cluster::ClusterCommand,
    envelope::{Command, Envelope, Request},
    host::{HostCommand, Schedule},
    id::Digest,
    image::ImageCommand,
    instance::{Body, Ended, Failure, InstanceCommand, Place, Report},
    limit,
    operation::{Class, OperationCommand, Status},
    principal::{Access, Principal},
    rejected::Reason,
    setting::SettingCommand,
    state::Loader,
    vm::{RunPolicy, SpecPatch, VmCommand},
};
use proptest::prelude::*;

use crate::world::{World, check_refusal, grant, id, image, name, spec};

/// One thing that happens. Numbers are reduced to a handful of objects so that they collide often.
#[derive(Clone, Debug)]
enum Step {
    Create { vm: u8, memory: u8, policy: u8, start: bool },
    Verb { vm: u8, verb: u8 },
    Patch { vm: u8, memory: u8 },
    Place { vm: u8, host: u8 },
    Report { vm: u8, body: u8, failure: u8, stale: bool },
    Cancel { back: u8 },
    TakeUp { back: u8, verb: u8 },
    Workers { count: u8 },
    Probe { host: u8 },
    Probed { host: u8, answers: bool },
    Drain { host: u8, begins: bool },
    Grant { host: u8 },
    Renew { host: u8 },
    Tick { seconds: u16 },
    Image { delete: bool },
    RemoveHost { host: u8 },
    Rule { named: u8, deletes: bool },
    Notify,
    Notified { took_it: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u8>(), any::<u8>(), any::<u8>(), any::<bool>())
            .prop_map(|(vm, memory, policy, start)| Step::Create { vm, memory, policy, start }),
        6 => (any::<u8>(), any::<u8>()).prop_map(|(vm, verb)| Step::Verb { vm, verb }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(vm, memory)| Step::Patch { vm, memory }),
        6 => (any::<u8>(), any::<u8>()).prop_map(|(vm, host)| Step::Place { vm, host }),
        12 => (any::<u8>(), any::<u8>(), any::<u8>(), prop::bool::weighted(0.1))
            .prop_map(|(vm, body, failure, stale)| Step::Report { vm, body, failure, stale }),
        2 => any::<u8>().prop_map(|back| Step::Cancel { back }),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(back, verb)| Step::TakeUp { back, verb }),
        2 => any::<u8>().prop_map(|count| Step::Workers { count }),
        1 => any::<u8>().prop_map(|host| Step::Probe { host }),
        2 => (any::<u8>(), any::<bool>())
            .prop_map(|(host, answers)| Step::Probed { host, answers }),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(host, begins)| Step::Drain { host, begins }),
        2 => any::<u8>().prop_map(|host| Step::Grant { host }),
        4 => any::<u8>().prop_map(|host| Step::Renew { host }),
        3 => (0_u16..800).prop_map(|seconds| Step::Tick { seconds }),
        1 => any::<bool>().prop_map(|delete| Step::Image { delete }),
        1 => any::<u8>().prop_map(|host| Step::RemoveHost { host }),
        2 => (any::<u8>(), prop::bool::weighted(0.3))
            .prop_map(|(named, deletes)| Step::Rule { named, deletes }),
        2 => Just(Step::Notify),
        2 => any::<bool>().prop_map(|took_it| Step::Notified { took_it }),
    ]
}

/// The command of a step in a world, if the step makes sense in it.
fn command(world: &World, step: &Step, count: u128) -> Option<Command> {
    let state = &world.state;
    let vm_name = |n: u8| name(&format!("vm{}", n % 4));
    let vm_of = |n: u8| state.vm_named(&name("default"), &vm_name(n)).map(|vm| vm.id);
    let operation = id(1_000 + count);
    Some(match *step {
        Step::Create { vm, memory, policy, start } => {
            let mut spec = spec();
            spec.memory_mib = u32::from(memory) * 4;
            spec.run_policy = [RunPolicy::Always, RunPolicy::OnFailure, RunPolicy::Manual]
                [usize::from(policy % 3)];
            let (vm, name) = (id(2_000 + count), vm_name(vm));
            let project = crate::world::name("default");
            let spec = Box::new(spec);
            Command::Vm(VmCommand::Create { vm, project, name, spec, start, operation })
        }
        Step::Verb { vm, verb } => {
            let vm = vm_of(vm)?;
            Command::Vm(match verb % 7 {
                0 => VmCommand::Start { vm, operation },
                1 => VmCommand::Stop { vm, force: false, operation },
                2 => VmCommand::Stop { vm, force: true, operation },
                3 => VmCommand::Reboot { vm, operation },
                4 => VmCommand::Pause { vm, operation },
                5 => VmCommand::Resume { vm, operation },
                _ => VmCommand::Delete { vm, etag: None, operation },
            })
        }
        Step::Patch { vm, memory } => {
            let memory_mib = Some(u32::from(memory) * 4);
            let patch = Box::new(SpecPatch { memory_mib, ..SpecPatch::default() });
            Command::Vm(VmCommand::Update { vm: vm_of(vm)?, patch, etag: None })
        }
        Step::Place { vm, host } => {
            let place = Place {
                vm: vm_of(vm)?,
                instance: id(3_000 + count),
                host: id(u128::from(host % 3) + 1),
            };
            Command::Instance(InstanceCommand::Place(vec![place]))
        }
        Step::Report { vm, body, failure, stale } => {
            let row = state.instance_of(vm_of(vm)?)?;
            let bodies = [
                Body::Absent,
                Body::Ready,
                Body::Running,
                Body::Running,
                Body::Paused,
                Body::Stopped(Ended::Shutdown),
                Body::Stopped(Ended::Killed),
                Body::Stopped(Ended::Crashed),
            ];
            let failure = (failure % 8 < 2)
                .then(|| Failure { permanent: failure % 8 == 0, message: "failure".into() });
            let fence = if stale { novacron_domain::Revision::new(0, 1) } else { row.fence };
            Command::Instance(InstanceCommand::Report(vec![Report {
                generation: Some(state.vms[&row.vm].generation),
                reboots: row.reboots + u32::from(body % 2),
                starts: row.starts + u32::from(body % 3 == 0),
                failure,
                ..Report::seen(row.id, fence, bodies[usize::from(body) % bodies.len()])
            }]))
        }
        Step::Cancel { back } => {
            let operation = *state.operations.keys().rev().nth(usize::from(back % 4))?;
            Command::Operation(OperationCommand::Cancel { operation })
        }
        Step::TakeUp { back, verb } => {
            let stuck = state.operations.values().rev();
            let stuck = stuck.filter(|operation| operation.status == Status::Stuck);
            let operation = stuck.map(|operation| operation.id).nth(usize::from(back % 2))?;
            Command::Operation(match verb % 3 {
                0 => OperationCommand::Retry { operation },
                1 => OperationCommand::Resume { operation },
                _ => OperationCommand::Abandon { operation },
            })
        }
        Step::Workers { count } => Command::Setting(SettingCommand::Set {
            key: [Class::VmOperations, Class::MonitoringAlerts][usize::from(count & 1)].workers(),
            value: u64::from(count) / 2 % 3,
        }),
        Step::Probe { host } => {
            let mut hosts = vec![(id(u128::from(host % 3) + 1), id(4_000 + count))];
            // One that does not exist: what was begun for the first one must not stay.
            hosts.extend((host > 127).then(|| (id(99), id(5_000 + count))));
            Command::Operation(OperationCommand::Probe {
                operation,
                class: Class::MonitoringAlerts,
                hosts,
            })
        }
        Step::Probed { host, answers } => {
            let operation = state.asked_of(id(u128::from(host % 3) + 1)).next()?;
            let answer = if answers { Ok(1) } else { Err("no answer".to_owned()) };
            Command::Operation(OperationCommand::Probed { operation, answer })
        }
        Step::Rule { named, deletes: true } => {
            Command::Alert(AlertCommand::DeleteRule { rule: name(&format!("r{}", named % 2)) })
        }
        Step::Rule { named, deletes: false } => {
            let signal = [Signal::VmRunning, Signal::HostUp][usize::from(named % 2)];
            Command::Alert(AlertCommand::SetRule(Box::new(Rule {
                name: name(&format!("r{}", named % 2)),
                signal,
                test: Test::Below(1),
                for_ms: u64::from(named / 2 % 2) * 5_000,
                project: None,
                labels: Default::default(),
                severity: Severity::Info,
                summary: String::new(),
                revision: Revision::ZERO,
            })))
        }
        Step::Notify => {
            let alerts = state.news(u64::MAX);
            Command::Alert(AlertCommand::Notify { operation, alerts })
        }
        Step::Notified { took_it } => {
            let notice = state.notices().next()?;
            let told = notice.alerts.iter();
            let told = told.map(|alert| ((alert.rule.clone(), alert.of), alert.state)).collect();
            let answer = if took_it { Ok("told".into()) } else { Err("refused".into()) };
            let operation = notice.operation;
            Command::Alert(AlertCommand::Notified { operation, answer, told })
        }
        Step::Drain { host, begins } => Command::Host(HostCommand::Schedule {
            host: id(u128::from(host % 3) + 1),
            schedule: if begins { Schedule::Draining } else { Schedule::Open },
            operation: begins.then_some(operation),
        }),
        Step::Grant { host } => grant(u128::from(host % 3) + 1),
        Step::Renew { host } => {
            let host = state.hosts.get(&id(u128::from(host % 3) + 1))?;
            Command::Host(HostCommand::Renew(vec![(host.id, host.fence)]))
        }
        Step::Image { delete: true } => Command::Image(ImageCommand::Delete { image: id(1) }),
        Step::Image { delete: false } => image(),
        Step::RemoveHost { host } => {
            Command::Host(HostCommand::Remove { host: id(u128::from(host % 3) + 1) })
        }
        Step::Tick { .. } => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for (count, step) in steps.iter().enumerate() {
            if let Step::Tick { seconds } = step {
                world.tick(u64::from(*seconds) * 1000);
            } else if let Some(command) = command(&world, step, count as u128) {
                let reply = match command {
                    command if command.access() == Access::Node => world.node(command),
                    command => world.admin(command),
                };
                let bug = reply.as_ref().is_err_and(|rejected| rejected.reason == Reason::Bug);
                prop_assert!(!bug, "{step:?}");
            }
        }
    }

    /// A node that restarts from a snapshot anywhere on the way ends with the same state and chain.
    #[test]
    fn a_restored_node_agrees(steps in prop::collection::vec(step(), 1..60), cut in 0_usize..60) {
        let mut world = World::new();
        let mut other = world.state.clone();
        let mut in_place = Applier::new(world.state.clone());
        for (count, step) in steps.iter().enumerate() {
            if count == cut {
                other = reload(&other);
            }
            if let Step::Tick { seconds } = step {
                world.now_ms += u64::from(*seconds) * 1000;
            }
            let mark = world.state.mark;
            let tick = Command::Cluster(ClusterCommand::Tick(mark));
            let command = command(&world, step, count as u128).unwrap_or(tick);
            let principal = match command.access() {
                Access::Node => Principal::Node(1),
                Access::Role(_) | Access::Token | Access::Founding => Principal::Credential(id(1)),
            };
            let envelope = Envelope { at_ms: world.now_ms, wall_ms: 5, principal, request: None, trace: None, command };
            let index = world.state.index + 1;
            world.state = world.state.apply(index, envelope.clone()).state;
            other = other.apply(index, envelope.clone()).state;
            let _ = in_place.apply(index, envelope);
            prop_assert_eq!(world.state.chain, other.chain);
        }
        prop_assert_eq!(&world.state, &other);
        prop_assert_eq!(world.state, in_place.finish());
    }
}

#[test]
fn entries_in_a_row_do_what_they_do_one_by_one() {
    let world = World::new();
    let mut one_by_one = world.state.clone();
    let mut in_a_row = Applier::new(world.state.clone());
    let mut in_pieces = Applier::new(world.state);
    let (mut refused_late, mut answered_again) = (0, 0);
    for count in 1..=1_100_u64 {
        let n = u128::from(count);
        let index = one_by_one.index + 1;
        if count % 150 == 0 {
            one_by_one = one_by_one.skip(index);
            in_a_row.skip(index);
            in_pieces.skip(index);
            continue;
        }
        let (principal, command) = if count % 97 == 1 {
            // The second host there is not; what was begun for the first one is undone.
            let (operation, class) = (id(10_000 + n), Class::MonitoringAlerts);
            let hosts = vec![(id(1), id(20_000 + n)), (id(99), id(30_000 + n))];
            let probe = OperationCommand::Probe { operation, class, hosts };
            (Principal::Credential(id(1)), Command::Operation(probe))
        } else if count % 5 == 0 {
            (Principal::Node(1), Command::Cluster(ClusterCommand::Tick(one_by_one.mark)))
        } else {
            (Principal::Credential(id(1)), create(40_000 + n))
        };
        // Each comes twice.
        let request = (count % 3 == 0 && count % 5 != 0).then(|| Request {
            id: id(n / 6),
            digest: Digest::ZERO,
            since: Some(one_by_one.revision()),
        });
        // Once what is remembered is forgotten.
        let pause_ms = if count == 700 { limit::REQUEST_WINDOW_MS } else { 1 };
        let at_ms = one_by_one.now_ms + pause_ms;
        let envelope = Envelope { at_ms, wall_ms: 5, principal, request, trace: None, command };
        let applied = one_by_one.apply(index, envelope.clone());
        let reply = in_a_row.apply(index, envelope.clone());
        assert_eq!(reply, applied.reply);
        if count % 13 == 4 {
            in_pieces = Applier::new(in_pieces.finish());
        }
        assert_eq!(in_pieces.apply(index, envelope), applied.reply);
        check_refusal(&one_by_one, &applied);
        answered_again +=
            u32::from(reply.as_ref().is_ok_and(|outcome| outcome.revision.index() < index));
        refused_late += u32::from(reply.is_err_and(|why| why.reason == Reason::NotFound));
        one_by_one = applied.state;
    }
    assert!(refused_late > 8, "{refused_late}");
    assert!(answered_again > 50, "{answered_again}");
    assert!(one_by_one.vms.len() > 400, "{}", one_by_one.vms.len());
    assert!(one_by_one.requests.floor() > 0);
    assert_eq!(in_a_row.finish(), one_by_one);
    assert_eq!(in_pieces.finish(), one_by_one);
}

/// The state after a trip through its own records and their encoding.
fn reload(state: &State) -> State {
    let mut loader = Loader::default();
    for record in state.records() {
        let bytes = novacron_domain::codec::encode(&record);
        loader.push(novacron_domain::codec::decode(&bytes).unwrap()).unwrap();
    }
    let loaded = loader.finish().unwrap();
    for body in loaded.vms.keys().filter_map(|vm| loaded.instance_of(*vm)) {
        let vm = &loaded.vms[&body.vm];
        assert_eq!(
            vm.spec == body.spec,
            Arc::ptr_eq(&vm.spec, &body.spec),
            "they share what is equal"
        );
    }
    loaded
}

fn create(n: u128) -> Command {
    Command::Vm(VmCommand::Create {
        vm: id(n),
        project: name("default"),
        name: name(&format!("vm{n}")),
        spec: Box::new(spec()),
        start: true,
        operation: id(n),
    })
}

#[test]
fn a_retry_has_one_effect_and_the_same_answer() {
    let mut world = World::new();
    let first = world.requested(1, b"create vm1", None, create(1)).unwrap();
    // Another attempt mints other ids; the answer is the first one's all the same.
    let again = world.requested(1, b"create vm1", None, create(2)).unwrap();
    assert_eq!(first, again);
    assert_eq!(world.state.vms.len(), 1);

    let reused = world.requested(1, b"create vm3", None, create(3)).unwrap_err();
    assert_eq!(reused.reason, Reason::RequestIdReused);

    // The memory survives a restart, as everything does.
    world.state = reload(&world.state);
    assert_eq!(world.requested(1, b"create vm1", None, create(4)).unwrap(), first);
}

#[test]
fn a_request_older_than_the_memory_is_refused() {
    let mut world = World::new();
    let seen = world.state.revision();
    world.requested(1, b"1", Some(seen), create(1)).unwrap();
    world.tick(novacron_domain::limit::REQUEST_WINDOW_MS + 1);
    // The window has moved on; whether request 1 was executed is no longer known here.
    let late = world.requested(1, b"1", Some(seen), create(2)).unwrap_err();
    assert_eq!(late.reason, Reason::RequestTooOld);
    let fresh = Some(world.state.revision());
    world.requested(2, b"2", fresh, create(3)).unwrap();
}

/// A leader whose clock stands behind the state's cannot turn lease time back.
#[test]
fn time_never_runs_backwards() {
    let mut world = World::new();
    world.tick(5_000);
    let before = world.state.now_ms;
    world.now_ms = 0;
    world.tick(0);
    assert_eq!(world.state.now_ms, before);
}
