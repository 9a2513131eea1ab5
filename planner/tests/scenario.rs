//! Scenarios of placement: hosts and VMs in a line each, and where the VMs go.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Write as _;

use domain::{
    State,
    cluster::{Cluster, ClusterCommand, Founding, PROTOCOL_VERSION},
    envelope::{Command, Envelope},
    host::{Capacity, Grant, HostCommand},
    id::{Digest, HostId, VmId},
    image::ImageCommand,
    instance::{Body, InstanceCommand, Place, Report},
    name::Name,
    principal::Principal,
    setting::{Key, SettingCommand},
    vm::{Failover, RunPolicy, Scoring, SpecPatch, VmCommand, VmSpec},
};
use newtype_uuid::{GenericUuid, TypedUuid, TypedUuidKind};
use novacron_planner::place::{failover, place, verdicts};
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
        protocol_version: PROTOCOL_VERSION,
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
            pool: None,
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
            placement: Default::default(),
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
    let envelope =
        Envelope { at_ms: 1, wall_ms: 1, principal, request: None, trace: None, command };
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

/// VMs of `1/100` with labels and rules, on hosts with labels; `decide` must accept every placement. Words of
/// a VM: `app=web` is its own label, `+app=web` near, `-app=web` apart, `@disk=ssd` of its host, `%rack` the
/// domain, `pack` the scoring.
fn check_rules(hosts: &[&str], vms: &[&str], expected: &[&str]) {
    let sizes = (vec!["8/8000"; hosts.len()], vec!["1/100"; vms.len()]);
    let mut state = world(&sizes.0, &sizes.1);
    let pair = |text: &str| {
        let (label, value) = text.split_once('=').unwrap();
        (name(label), value.to_owned())
    };
    let admin = Principal::Credential(id(1));
    for (n, text) in (1..).zip(hosts) {
        let labels = text.split_whitespace().map(pair).map(|(label, value)| (label, Some(value)));
        let label = HostCommand::Label { host: id(n), labels: labels.collect() };
        apply(&mut state, admin.clone(), Command::Host(label));
    }
    for (n, text) in (1..).zip(vms) {
        let mut spec = VmSpec::clone(&state.vms[&id(n)].spec);
        for word in text.split_whitespace() {
            let rules = &mut spec.placement;
            match word.split_at(1) {
                ("+", rest) => rules.near.extend([pair(rest)]),
                ("-", rest) => rules.apart_from.extend([pair(rest)]),
                ("@", rest) => rules.host_labels.extend([pair(rest)]),
                ("%", rest) => rules.domain = Some(name(rest)),
                _ if word == "pack" => rules.scoring = Scoring::Pack,
                _ => spec.labels.extend([pair(word)]),
            }
        }
        let patch = Box::new(SpecPatch { whole: Some(Box::new(spec)), ..SpecPatch::default() });
        let update = VmCommand::Update { vm: id(n), patch, etag: None };
        apply(&mut state, admin.clone(), Command::Vm(update));
    }
    let plan = place(&state, 1000);
    let mut lines = Vec::new();
    for (vm, text) in state.vms.values().zip(vms) {
        let place = plan.placed.iter().find(|(id, _)| *id == vm.id);
        let place = place.map(|(_, host)| state.hosts[host].name.to_string());
        let place = place.unwrap_or_else(|| plan.unplaceable[&vm.id].to_string());
        lines.push(format!("{text}: {place}"));
    }
    assert_eq!(lines, expected);
    for (n, (vm, host)) in (1_000..).zip(&plan.placed) {
        let place = Place { vm: *vm, instance: id(n), host: *host };
        let command = Command::Instance(InstanceCommand::Place(vec![place]));
        apply(&mut state, Principal::Node(1), command);
    }
    assert_eq!(state.instances.len(), plan.placed.len(), "decide accepts what the planner plans");
    // And nothing else: where the planner does not see a VM, decide does not either.
    for vm in state.vms.values().filter(|vm| state.instance_of(vm.id).is_none()) {
        for host in state.hosts.values() {
            let place = Place { vm: vm.id, instance: id(9_999), host: host.id };
            let mut other = state.clone();
            let command = Command::Instance(InstanceCommand::Place(vec![place]));
            apply(&mut other, Principal::Node(1), command);
            assert_eq!(
                other.instances.len(),
                state.instances.len(),
                "{} on {}",
                vm.name,
                host.name
            );
        }
    }
}

/// VMs of the given memory, `!` for those that may be made anew, on hosts that keep room for a lost one.
fn check_reserve(hosts: &[&str], vms: &[&str], expected: &[&str]) {
    let sizes: Vec<_> = vms.iter().map(|vm| format!("1/{}", vm.trim_end_matches('!'))).collect();
    let mut state = world(hosts, &sizes.iter().map(String::as_str).collect::<Vec<_>>());
    let admin = Principal::Credential(id(1));
    let setting = SettingCommand::Set { key: Key::FailoverReserve, value: 1 };
    apply(&mut state, admin.clone(), Command::Setting(setting));
    for (n, _) in (1..).zip(vms).filter(|(_, vm)| vm.ends_with('!')) {
        let patch = SpecPatch { failover: Some(Failover::Rebuild), ..SpecPatch::default() };
        let update = VmCommand::Update { vm: id(n), patch: Box::new(patch), etag: None };
        apply(&mut state, admin.clone(), Command::Vm(update));
    }
    let plan = place(&state, 1000);
    let lines = state.vms.values().map(|vm| {
        let place = plan.placed.iter().find(|(id, _)| *id == vm.id);
        let place = place.map(|(_, host)| state.hosts[host].name.to_string());
        place.unwrap_or_else(|| plan.unplaceable[&vm.id].to_string())
    });
    assert_eq!(lines.collect::<Vec<_>>(), expected);
    let rows = (1_000..).zip(&plan.placed);
    let rows = rows.map(|(n, (vm, host))| Place { vm: *vm, instance: id(n), host: *host });
    let command = Command::Instance(InstanceCommand::Place(rows.collect()));
    apply(&mut state, Principal::Node(1), command);
    assert_eq!(state.instances.len(), plan.placed.len(), "decide accepts what the planner plans");
}

#[test]
fn room_is_kept_for_a_lost_host() {
    // Two hosts of 1,000: of what may be made anew each holds as much as is free on the other.
    let full = "no host of 2: 2 keeping room for a lost host";
    check_reserve(&["8/1000", "8/1000"], &["500!", "500!", "100!"], &["h1", "h2", full]);
    // What stays needs no room elsewhere, but takes it.
    check_reserve(
        &["8/1000", "8/1000"],
        &["600", "600", "300!", "200!"],
        &[
            "h1",
            "h2",
            "h1",
            "no host of 2: 1 keeping room for a lost host, 1 without enough memory",
        ],
    );
    check_reserve(
        &["8/1000", "8/1000"],
        &["500!", "600"],
        &["h1", "no host of 2: 1 keeping room for a lost host, 1 without enough memory"],
    );
    // Three hosts hold more.
    check_reserve(
        &["8/900", "8/900", "8/900"],
        &["300!", "300!", "300!", "300!", "300!", "300!", "300!"],
        &["h1", "h2", "h3", "h1", "h2", "h3", "no host of 3: 3 keeping room for a lost host"],
    );
}

#[test]
fn rules_about_hosts_and_neighbours() {
    // Labels of hosts.
    check_rules(
        &["disk=hdd", "disk=ssd", ""],
        &["@disk=ssd", "@disk=ssd", "@disk=nvme"],
        &["@disk=ssd: h2", "@disk=ssd: h2", "@disk=nvme: no host of 3: 3 without label disk=nvme"],
    );
    // Apart, within one plan; who comes without such a rule respects theirs.
    check_rules(
        &["", ""],
        &["app=web -app=web", "app=web -app=web", "app=web -app=web", "app=web", ""],
        &[
            "app=web -app=web: h1",
            "app=web -app=web: h2",
            "app=web -app=web: no host of 2: 1 to be apart from VM vm1, which is there, 1 to be apart \
             from VM vm2, which is there",
            "app=web: no host of 2: 1 to be apart from VM vm1, which is there, 1 to be apart from VM \
             vm2, which is there",
            ": h1",
        ],
    );
    // By rack: a host without the label is in none.
    check_rules(
        &["rack=a", "rack=a", "rack=b", ""],
        &["app=db -app=db %rack", "app=db -app=db %rack", "app=db -app=db %rack"],
        &["app=db -app=db %rack: h1", "app=db -app=db %rack: h3", "app=db -app=db %rack: h4"],
    );
    // Near: the first may be anywhere; by rack.
    check_rules(
        &["rack=a", "rack=b", "rack=b"],
        &["app=db @rack=b", "+app=db %rack", "+app=db", "+app=none"],
        &["app=db @rack=b: h2", "+app=db %rack: h3", "+app=db: h2", "+app=none: h1"],
    );
    // What is to be near and what is to be apart are in one place.
    check_rules(
        &["", ""],
        &["app=a tier=x", "+app=a -tier=x"],
        &[
            "app=a tier=x: h1",
            "+app=a -tier=x: no host of 2: 1 to be apart from VM vm1, which is there, 1 to be near VM \
             vm1, which is elsewhere",
        ],
    );
    // Packed: the fullest that has room.
    check_rules(
        &["", "", ""],
        &["", "pack", "pack", ""],
        &[": h1", "pack: h1", "pack: h1", ": h2"],
    );
}

/// What each host is to the first VM, in words.
fn check_verdicts(hosts: &[&str], vms: &[&str], on: Option<u64>, expected: &[&str]) {
    let mut state = world(hosts, vms);
    let ids: Vec<VmId> = state.vms.keys().copied().collect();
    if let Some(host) = on {
        move_to(&mut state, ids[0], id(host));
    }
    let verdicts = verdicts(&state, &state.vms[&ids[0]]).into_iter().map(|verdict| {
        let host = &state.hosts[&verdict.host].name;
        let here = if verdict.here { " here" } else { "" };
        format!("{host}{here} {} %: {}", verdict.free_ppm / 10_000, verdict.refusals.join(", "))
    });
    assert_eq!(verdicts.collect::<Vec<_>>(), expected);
}

#[test]
fn a_vm_is_told_about_every_host() {
    // The one that would be chosen comes first; every reason is told.
    check_verdicts(&["2/1000", "8/4000"], &["1/500"], None, &["h1 100 %: ", "h2 100 %: "]);
    check_verdicts(
        &["1/100", "4/1000", "1/1000"],
        &["2/500@h2"],
        None,
        &[
            "h2 100 %: ",
            "h1 100 %: not the one host it may go to, without enough cpu",
            "h3 100 %: not the one host it may go to, without enough cpu",
        ],
    );
    // What it takes itself is not in its way.
    check_verdicts(&["2/1000", "8/4000"], &["2/1000"], Some(1), &["h1 here 100 %: ", "h2 100 %: "]);
}

/// All VMs of the first host, which is then off; they leave in waves of as many as may be on their way. VMs
/// are `priority` or `priority>vm,vm` for those after which they go.
fn check_failover(hosts: &[&str], vms: &[&str], parallel: u64, expected: &[&str]) {
    let sizes = vec!["1/100"; vms.len()];
    let mut state = world(hosts, &sizes);
    let ids: Vec<_> = state.vms.keys().copied().collect();
    let (node, admin) = (Principal::Node(1), Principal::Credential(id(1)));
    let setting = SettingCommand::Set { key: Key::FailoversParallel, value: parallel };
    apply(&mut state, admin.clone(), Command::Setting(setting));
    for (vm, text) in ids.iter().zip(vms) {
        let (priority, after) = text.split_once('>').unwrap_or((text, ""));
        let patch = SpecPatch {
            failover: Some(Failover::Rebuild),
            failover_priority: Some(priority.parse().unwrap()),
            failover_after: Some(after.split(',').filter(|vm| !vm.is_empty()).map(name).collect()),
            ..SpecPatch::default()
        };
        let update = VmCommand::Update { vm: *vm, patch: Box::new(patch), etag: None };
        apply(&mut state, admin.clone(), Command::Vm(update));
        move_to(&mut state, *vm, id(1));
    }
    let host = state.hosts[&id(1)].clone();
    let off = HostCommand::PoweredOff { host: host.id, boot: host.boot, fence: host.fence };
    apply(&mut state, node.clone(), Command::Host(off));
    let mut waves = Vec::new();
    loop {
        let plan = failover(&state);
        let names = |ids: Vec<VmId>| {
            let names = ids.iter().map(|id| state.vms[id].name.to_string());
            names.collect::<Vec<_>>().join(" ")
        };
        if plan.placed.is_empty() {
            if let Some(reason) = plan.unplaceable.values().next() {
                let left = names(plan.unplaceable.keys().copied().collect());
                waves.push(format!("{left}: {reason}"));
            }
            break;
        }
        let placed: Vec<_> = plan.placed.iter().map(|(vm, _)| *vm).collect();
        waves.push(names(placed.clone()));
        let rows = (10_000 + state.index..).zip(placed).map(|(n, vm)| (vm, id(n)));
        let relocate = InstanceCommand::Relocate(rows.collect());
        apply(&mut state, node.clone(), Command::Instance(relocate));
        for (vm, host) in plan.placed {
            assert!(state.instance_of(vm).is_none(), "decide accepts what the planner plans");
            move_to(&mut state, vm, host);
        }
    }
    assert_eq!(waves, expected);
}

/// VMs that are to be near each other leave a lost host together.
#[test]
fn a_group_is_not_held_by_its_lost_host() {
    let mut state = world(&["8/8000", "8/8000", "8/8000"], &["1/100", "1/100"]);
    let ids: Vec<_> = state.vms.keys().copied().collect();
    let (node, admin) = (Principal::Node(1), Principal::Credential(id(1)));
    for vm in &ids {
        let mut spec = VmSpec::clone(&state.vms[vm].spec);
        spec.labels.insert(name("app"), "web".to_owned());
        spec.placement.near.insert(name("app"), "web".to_owned());
        spec.failover = Failover::Rebuild;
        let patch = Box::new(SpecPatch { whole: Some(Box::new(spec)), ..SpecPatch::default() });
        let update = VmCommand::Update { vm: *vm, patch, etag: None };
        apply(&mut state, admin.clone(), Command::Vm(update));
        move_to(&mut state, *vm, id(1));
    }
    let host = state.hosts[&id(1)].clone();
    let off = HostCommand::PoweredOff { host: host.id, boot: host.boot, fence: host.fence };
    apply(&mut state, node, Command::Host(off));
    let plan = failover(&state);
    assert_eq!(plan.placed, [(ids[0], id(2)), (ids[1], id(2))], "{plan:?}");
}

/// Places a VM, and has its host report that it runs.
fn move_to(state: &mut State, vm: VmId, host: HostId) {
    let node = Principal::Node(1);
    let place = Place { vm, instance: id(100_000 + state.index), host };
    apply(state, node.clone(), Command::Instance(InstanceCommand::Place(vec![place])));
    let body = state.instance_of(vm).unwrap().clone();
    let generation = Some(state.vms[&vm].generation);
    let report = Report { generation, ..Report::seen(body.id, body.fence, Body::Running) };
    apply(state, node, Command::Instance(InstanceCommand::Report(vec![report])));
}

#[test]
fn failovers() {
    let roomy = &["9/9000", "9/9000"];
    // By priority, then by age, as many at one time as may be.
    check_failover(roomy, &["50", "90", "50"], 1, &["vm2", "vm1", "vm3"]);
    check_failover(roomy, &["50", "90", "50"], 2, &["vm2 vm1", "vm3"]);
    // After those they name, whatever their priority; after one that is not lost at once.
    check_failover(roomy, &["90>vm2", "10", "50>nobody"], 9, &["vm3 vm2", "vm1"]);
    check_failover(roomy, &["90>vm2", "80>vm3", "10"], 9, &["vm3", "vm2", "vm1"]);
    // A circle is cut where the priority is highest.
    check_failover(roomy, &["10>vm2", "20>vm1"], 9, &["vm2", "vm1"]);
    check_failover(roomy, &["50>vm1"], 9, &["vm1"]);
    // What fits nowhere keeps what it has, and holds nobody up.
    check_failover(
        &["9/9000", "1/9000"],
        &["50", "90"],
        9,
        &["vm2", "vm1: no host of 2: 1 not ready, 1 without enough cpu"],
    );
    check_failover(&["9/9000"], &["50"], 9, &["vm1: no host of 1: 1 not ready"]);
}
