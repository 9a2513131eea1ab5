//! Scenarios of placement: hosts and VMs in a line each, and where the VMs go.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Write as _;

use domain::{
    State,
    cluster::{Cluster, ClusterCommand, Founding},
    envelope::{Command, Envelope},
    host::{Capacity, Grant, HostCommand},
    id::Digest,
    image::ImageCommand,
    instance::{InstanceCommand, Place},
    name::Name,
    principal::Principal,
    vm::{Failover, RunPolicy, VmCommand, VmSpec},
};
use newtype_uuid::{GenericUuid, TypedUuid, TypedUuidKind};
use novacron_planner::place::place;
use uuid::Uuid;

fn id<K: TypedUuidKind>(n: u64) -> TypedUuid<K> {
    TypedUuid::from_untyped_uuid(Uuid::from_u128(u128::from(n)))
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Hosts as `cpus/memory_mib`, VMs as `cpus/memory_mib[@host]`.
fn world(hosts: &[&str], vms: &[&str]) -> State {
    let mut state = State::default();
    let found = Founding {
        cluster: Cluster { id: id(1), name: name("test") },
        node: 1,
        node_name: name("n1"),
        peer_address: String::new(),
        api_address: String::new(),
        store: id(1),
        key_sha256: Digest::ZERO,
        admin: id(1),
        admin_sha256: Digest::ZERO,
        tokens: Vec::new(),
    };
    apply(&mut state, Principal::Founder, Command::Cluster(ClusterCommand::Found(Box::new(found))));
    for (n, host) in (1..).zip(hosts) {
        let (cpus, memory) = host.split_once('/').unwrap();
        let grant = Grant {
            host: id(n),
            name: name(&format!("h{n}")),
            driver: name("simulator"),
            capacity: Capacity {
                cpu_millicores: cpus.parse::<u64>().unwrap() * 1000,
                memory_mib: memory.parse().unwrap(),
                disk_mib: 1 << 30,
            },
            reserved: Capacity::default(),
            boot: id(n),
            foreign: 0,
        };
        apply(&mut state, Principal::Node(1), Command::Host(HostCommand::Grant(Box::new(grant))));
    }
    let image = ImageCommand::Create {
        image: id(1),
        name: name("none"),
        files: Vec::new(),
        origin: String::new(),
        holder: None,
    };
    apply(&mut state, Principal::Credential(id(1)), Command::Image(image));
    for (n, vm) in (1..).zip(vms) {
        let (size, host) = vm.split_once('@').map_or((*vm, None), |(s, h)| (s, Some(name(h))));
        let (cpus, memory) = size.split_once('/').unwrap();
        let spec = VmSpec {
            vcpus: cpus.parse().unwrap(),
            memory_mib: memory.parse().unwrap(),
            image: name("none"),
            root_disk_mib: 0,
            disks: Vec::new(),
            nics: Vec::new(),
            cmdline: String::new(),
            user_data: String::new(),
            run_policy: RunPolicy::Manual,
            failover: Failover::Stay,
            failover_priority: 50,
            failover_after: Vec::new(),
            deletion_protection: false,
            host,
            labels: Default::default(),
        };
        let create = VmCommand::Create {
            vm: id(n),
            project: name("default"),
            name: name(&format!("vm{n}")),
            spec: Box::new(spec),
            start: true,
            operation: id(n),
        };
        apply(&mut state, Principal::Credential(id(1)), Command::Vm(create));
    }
    state
}

fn apply(state: &mut State, principal: Principal, command: Command) {
    let envelope = Envelope { at_ms: 1, wall_ms: 1, principal, request: None, command };
    let applied = state.apply(state.index + 1, envelope);
    // A pinned host that does not exist is refused at the gate, as it should be.
    applied.reply.unwrap();
    *state = applied.state;
}

/// The plan in words; `decide` must accept every placement of it.
fn check(hosts: &[&str], vms: &[&str], expected: &[&str]) {
    let mut state = world(hosts, vms);
    let plan = place(&state, 1000);
    assert_eq!(plan, place(&state, 1000), "the same state gives the same plan");
    let mut lines = Vec::new();
    for vm in state.vms.values() {
        let mut line = format!("{}: ", vm.name);
        match plan.placed.iter().find(|(id, _)| *id == vm.id) {
            Some((_, host)) => write!(line, "{}", state.hosts[host].name).unwrap(),
            None => line.push_str(&plan.unplaceable[&vm.id]),
        }
        lines.push(line);
    }
    assert_eq!(lines, expected);

    let rows = plan.placed.iter().map(|(vm, host)| {
        let instance = TypedUuid::from_untyped_uuid(vm.into_untyped_uuid());
        Place { vm: *vm, instance, host: *host }
    });
    let command = Command::Instance(InstanceCommand::Place(rows.collect()));
    apply(&mut state, Principal::Node(1), command);
    assert_eq!(state.instances.len(), plan.placed.len(), "decide accepts what the planner plans");
}

#[test]
fn scenarios() {
    check(&[], &["1/64"], &["vm1: the cluster has no hosts yet"]);
    // Spread: the emptiest host first, and in turn.
    check(
        &["4/1000", "4/1000"],
        &["1/100", "1/100", "1/100", "1/100"],
        &["vm1: h1", "vm2: h2", "vm3: h1", "vm4: h2"],
    );
    // A bigger host takes more.
    check(&["2/1000", "8/4000"], &["1/500", "1/500", "1/500"], &["vm1: h1", "vm2: h2", "vm3: h2"]);
    // Within one plan a host is not filled twice; the reasons are counted by host.
    check(
        &["2/1000", "1/4000"],
        &["1/900", "1/900", "1/900", "2/100"],
        &[
            "vm1: h1",
            "vm2: h2",
            "vm3: no host of 2: 1 without enough cpu, 1 without enough memory",
            "vm4: no host of 2: 2 without enough cpu",
        ],
    );
    // What fits nowhere holds nobody up, however much of it there is.
    let mut vms = vec!["99/100"; 1_100];
    vms.push("1/100");
    let state = world(&["4/1000"], &vms);
    let plan = place(&state, 1_000);
    assert_eq!((plan.placed.len(), plan.unplaceable.len()), (1, 1_100));
    // A pinned VM passes every other filter too.
    check(
        &["1/100", "4/1000"],
        &["1/500@h1", "1/500@h2"],
        &["vm1: no host of 2: 1 not the one host it may go to, 1 without enough memory", "vm2: h2"],
    );
}
