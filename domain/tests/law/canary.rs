//! Canaries: on which host, and what becomes of them.

use novacron_domain::{
    alert::{AlertState, Subject},
    canary::{self, CanaryCommand},
    envelope::{Command, Outcome},
    host::HostCommand,
    id::{HostId, VmId},
    image::ImageCommand,
    instance::{Body, InstanceCommand, Place, Report},
    rejected::{Reason, Rejected},
    setting::{Key, SettingCommand},
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
    world.state.canaries.iter().find_map(|(host, canary)| Some((*host, canary.vm?)))
}

/// One runs and goes, on this host.
fn flies(world: &mut World, n: u128, expected: u128) {
    turn(world, n).unwrap();
    let (host, vm) = under_way(world).unwrap();
    assert_eq!((host, vm), (id(expected), id(100 + n)));
    assert_eq!(world.state.vms[&vm].project, canary::name());
    assert_eq!(turn(world, n + 1).unwrap_err().reason, Reason::Fenced, "it is on its way");
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

#[test]
fn one_that_does_not_run_has_failed_and_goes_all_the_same() {
    let mut world = world();
    turn(&mut world, 1).unwrap();
    let (host, vm) = under_way(&world).unwrap();
    for _ in 0..31 {
        world.tick(10_000);
        renew(&mut world);
    }
    turn(&mut world, 2).unwrap();
    assert_eq!(world.state.canaries[&host].failure.as_deref(), Some("it did not run after 300 s"));
    world.tick(5_000);
    let rule = name("canary-failing");
    let alerts: Vec<_> = world.state.alerts_of(&rule).map(|it| (it.of, it.state)).collect();
    assert_eq!(alerts, [(Subject::Host(host), AlertState::Firing)]);
    // Nothing was made yet, so it is gone at once.
    assert!(!world.state.vms.contains_key(&vm));
    turn(&mut world, 3).unwrap();
    assert_eq!((world.state.canaries[&host].failures, under_way(&world)), (1, None));

    // The next one on that host runs, and all is well again.
    for n in [10, 20, 30] {
        for _ in 0..60 {
            world.tick(10_000);
            renew(&mut world);
        }
        let next = if n == 30 { 1 } else { n / 10 + 1 };
        flies(&mut world, n, next);
    }
    assert_eq!(world.state.canaries[&host].failures, 0);
    assert_eq!(host, id(1));
    assert!(world.state.projects.contains_key(&name("canary")));
}
