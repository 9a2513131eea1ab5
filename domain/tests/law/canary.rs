//! Canaries: on which host, and what becomes of them.

use novacron_domain::{
    alert::{AlertState, Subject},
    canary::{self, CanaryCommand},
    envelope::{Command, Outcome},
    host::HostCommand,
    id::{HostId, VmId},
    image::ImageCommand,
    instance::{Body, Failure, InstanceCommand, Place, Report},
    rejected::{Reason, Rejected},
    setting::{Key, SettingCommand},
    vm::{SpecPatch, VmCommand},
};

use crate::world::{World, id, name};

const MINUTE: u64 = 60_000;

/// Hosts that are heard of, an image, and a canary every ten minutes.
fn world() -> World {
    let mut world = World::new();
    let image = ImageCommand::Create {
        image: id(9),
        name: canary::name(),
        files: Vec::new(),
        origin: String::new(),
        holder: None,
    };
    world.admin(Command::Image(image)).unwrap();
    world.tick(10 * MINUTE);
    renew(&mut world);
    world
}

/// All hosts are heard of.
fn renew(world: &mut World) {
    let hosts: Vec<_> = world.state.hosts.values().map(|host| (host.id, host.fence)).collect();
    let lost = hosts
        .iter()
        .any(|(host, _)| world.state.hosts[host].status != novacron_domain::host::Status::Ready);
    if lost {
        for n in 1..=3 {
            world.node(crate::world::grant(n)).unwrap();
        }
    } else {
        world.node(Command::Host(HostCommand::Renew(hosts))).unwrap();
    }
}

fn turn(world: &mut World, n: u128) -> Result<Outcome, Rejected> {
    let host = world.state.canary_turn().unwrap_or(id(1));
    let turn = CanaryCommand::Turn { host, vm: id(100 + n), operation: id(200 + n) };
    world.node(Command::Canary(turn))
}

fn report(world: &mut World, vm: VmId, body: Body) {
    let row = world.state.instance_of(vm).unwrap().clone();
    let report = Report {
        generation: Some(1),
        starts: u32::from(body == Body::Running),
        ..Report::seen(row.id, row.fence, body)
    };
    world.node(Command::Instance(InstanceCommand::Report(vec![report]))).unwrap();
}

fn place(world: &mut World, vm: VmId, host: HostId) {
    let place = Place { vm, instance: id(300 + u128::from(world.state.index)), host };
    world.node(Command::Instance(InstanceCommand::Place(vec![place]))).unwrap();
}

/// The host of the canary that is under way.
fn under_way(world: &World) -> Option<(HostId, VmId)> {
    let mut known = world.state.canaries.iter();
    known.find_map(|(host, it)| Some((*host, it.vm.filter(|_| it.failure.is_none())?)))
}

/// One runs and goes, on this host.
fn flies(world: &mut World, n: u128, expected: u128) {
    turn(world, n).unwrap();
    let (host, vm) = under_way(world).unwrap();
    assert_eq!((host, vm), (id(expected), id(100 + n)));
    assert_eq!(world.state.vms[&vm].project, canary::name());
    let again = CanaryCommand::Turn { host, vm: id(100 + n + 1), operation: id(200 + n + 1) };
    let refused = world.node(Command::Canary(again)).unwrap_err();
    assert_eq!(refused.reason, Reason::Fenced, "it is on its way");
    place(world, vm, host);
    report(world, vm, Body::Ready);
    report(world, vm, Body::Running);
    turn(world, n + 2).unwrap();
    assert!(world.state.vms[&vm].deleting);
    report(world, vm, Body::Absent);
    assert!(!world.state.vms.contains_key(&vm));
    turn(world, n + 3).unwrap();
    assert_eq!(under_way(world), None);
}

#[test]
fn one_host_after_the_other_has_one() {
    let mut world = world();
    for (round, host) in [1, 2, 3, 1].into_iter().enumerate() {
        flies(&mut world, 10 * round as u128, host);
        assert!(world.state.canary_turn().is_none(), "until it is time again");
        for _ in 0..60 {
            world.tick(10_000);
            renew(&mut world);
        }
    }
    assert!(world.state.canaries.values().all(|canary| canary.failures == 0));
    let never = SettingCommand::Set { key: Key::CanaryIntervalMs, value: 0 };
    world.admin(Command::Setting(never)).unwrap();
    assert!(world.state.canary_turn().is_none());
}

/// Ten minutes later.
fn wait(world: &mut World) {
    for _ in 0..60 {
        world.tick(10_000);
        renew(world);
    }
}

/// The states of alerts that a canary has failed, by hosts.
fn alerts(world: &World) -> Vec<(Subject, AlertState)> {
    world.state.alerts_of(&name("canary-failing")).map(|it| (it.of, it.state)).collect()
}

fn failures(world: &World, host: u128) -> u32 {
    world.state.canaries[&id(host)].failures
}

fn delete(world: &mut World, vm: VmId) {
    let delete = VmCommand::Delete { vm, etag: None, operation: id(900) };
    world.admin(Command::Vm(delete)).unwrap();
}

#[test]
fn one_that_does_not_run_has_failed_and_goes_all_the_same() {
    let mut world = world();
    turn(&mut world, 1).unwrap();
    let (host, vm) = under_way(&world).unwrap();
    place(&mut world, vm, host);
    for _ in 0..31 {
        world.tick(10_000);
        renew(&mut world);
    }
    turn(&mut world, 2).unwrap();
    assert_eq!(world.state.canaries[&host].failure.as_deref(), Some("it did not run after 300 s"));
    world.tick(5_000);
    assert_eq!(alerts(&world), [(Subject::Host(host), AlertState::Firing)]);
    report(&mut world, vm, Body::Absent);
    assert!(!world.state.vms.contains_key(&vm));
    turn(&mut world, 3).unwrap();
    assert_eq!((failures(&world, 1), under_way(&world)), (1, None));

    // The host is tried again when it is time, beside the others.
    wait(&mut world);
    flies(&mut world, 10, 2);
    flies(&mut world, 20, 1);
    assert_eq!(failures(&world, 1), 0);
    assert!(world.state.projects.contains_key(&name("canary")));
}

/// One that only waits tells nothing of the host, nor does one that somebody deletes.
#[test]
fn what_is_not_the_hosts_fault_is_not_counted() {
    let mut world = world();
    turn(&mut world, 1).unwrap();
    let (host, vm) = under_way(&world).unwrap();
    for _ in 0..31 {
        world.tick(10_000);
        renew(&mut world);
    }
    turn(&mut world, 2).unwrap();
    assert!(!world.state.vms.contains_key(&vm), "nothing was made yet, so it is gone at once");
    turn(&mut world, 3).unwrap();
    assert_eq!((host, failures(&world, 1), under_way(&world)), (id(1), 0, None));

    // A failure, and the next one is deleted by a person.
    wait(&mut world);
    turn(&mut world, 10).unwrap();
    let (host, vm) = under_way(&world).unwrap();
    place(&mut world, vm, host);
    let row = world.state.instance_of(vm).unwrap().clone();
    let failure = Some(Failure { permanent: true, message: "no".to_owned() });
    let failed = Report { failure, ..Report::seen(row.id, row.fence, Body::Absent) };
    world.node(Command::Instance(InstanceCommand::Report(vec![failed]))).unwrap();
    turn(&mut world, 11).unwrap();
    report(&mut world, vm, Body::Absent);
    turn(&mut world, 12).unwrap();
    assert_eq!((host, failures(&world, 2)), (id(2), 1));
    wait(&mut world);
    flies(&mut world, 20, 3);
    turn(&mut world, 30).unwrap();
    let (host, vm) = under_way(&world).unwrap();
    assert_eq!(host, id(2));
    delete(&mut world, vm);
    turn(&mut world, 31).unwrap();
    assert_eq!(failures(&world, 2), 1, "as before");
    assert_eq!(alerts(&world), [(Subject::Host(host), AlertState::Firing)]);
    // Where none is made nothing is known.
    let never = SettingCommand::Set { key: Key::CanaryIntervalMs, value: 0 };
    world.admin(Command::Setting(never)).unwrap();
    world.tick(5_000);
    assert_eq!(alerts(&world), [(Subject::Host(host), AlertState::Resolved)]);
}

/// What cannot be made or deleted on one host holds no other host up, and is not asked again at once.
#[test]
fn a_host_that_is_broken_holds_no_other_up() {
    let mut world = world();
    // It is made, fails, and its host does not delete it.
    turn(&mut world, 1).unwrap();
    let (host, vm) = under_way(&world).unwrap();
    place(&mut world, vm, host);
    wait(&mut world);
    turn(&mut world, 2).unwrap();
    assert!(world.state.vms[&vm].deleting);
    flies(&mut world, 10, 2);
    wait(&mut world);
    // Somebody has a VM of the next host's name, and protects one that runs.
    let taken = VmCommand::Create {
        vm: id(800),
        project: canary::name(),
        name: name("h3"),
        spec: Box::new(crate::world::spec()),
        start: false,
        operation: id(801),
    };
    world.admin(Command::Vm(taken)).unwrap();
    turn(&mut world, 20).unwrap();
    let said = world.state.canaries[&id(3)].failure.clone().unwrap();
    assert!(said.contains("exists already"), "{said}");
    turn(&mut world, 21).unwrap();
    let (host, vm) = under_way(&world).unwrap();
    assert_eq!(host, id(2), "the next one");
    place(&mut world, vm, host);
    report(&mut world, vm, Body::Ready);
    report(&mut world, vm, Body::Running);
    let protect = SpecPatch { deletion_protection: Some(true), ..SpecPatch::default() };
    world
        .admin(Command::Vm(VmCommand::Update { vm, patch: Box::new(protect), etag: None }))
        .unwrap();
    turn(&mut world, 22).unwrap();
    assert_eq!(failures(&world, 2), 1);
    assert!(!world.state.vms[&vm].deleting);
    assert_eq!(world.state.canary_turn(), None, "a person has to");
    // The third host is tried again, though what the first two have is still there.
    delete(&mut world, id(800));
    wait(&mut world);
    flies(&mut world, 30, 3);
    assert_eq!(failures(&world, 3), 0);
}

#[test]
fn the_canary_of_a_host_that_is_removed_goes() {
    let mut world = world();
    turn(&mut world, 1).unwrap();
    let (host, vm) = under_way(&world).unwrap();
    // Its host is lost before it is there.
    for _ in 0..6 {
        world.tick(10_000);
    }
    world.admin(Command::Host(HostCommand::Remove { host })).unwrap();
    turn(&mut world, 2).unwrap();
    assert!(!world.state.vms.contains_key(&vm));
    turn(&mut world, 3).unwrap();
    assert!(!world.state.canaries.contains_key(&host));
}
