//! Which policy counts for a VM, and which is refused.

use std::collections::BTreeMap;

use novacron_domain::{
    envelope::Command,
    id::VmId,
    migration_policy::MigrationPolicyCommand,
    name::Name,
    operation::{CopyPolicy, CopyWish, Terms},
    project::ProjectCommand,
    rejected::Reason,
    vm::{VmCommand, VmSpec},
};

use crate::world::{World, id, name, spec};

fn labels(text: &str) -> BTreeMap<Name, String> {
    let pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
    pairs.map(|(label, value)| (name(label), value.to_owned())).collect()
}

fn set(policy: &str, project: &str, of: &str, terms: Terms) -> Command {
    let project = (!project.is_empty()).then(|| name(project));
    let (name, labels) = (name(policy), labels(of));
    Command::MigrationPolicy(MigrationPolicyCommand::Set { name, project, labels, terms })
}

fn create(world: &mut World, n: u128, project: &str, of: &str) -> VmId {
    let create = VmCommand::Create {
        vm: id(n),
        project: name(project),
        name: name(&format!("vm{n}")),
        spec: Box::new(VmSpec { labels: labels(of), ..spec() }),
        start: true,
        operation: id(n + 500),
    };
    world.admin(Command::Vm(create)).unwrap();
    id(n)
}

#[test]
fn the_most_particular_policy_counts() {
    let mut world = World::new();
    world.admin(Command::Project(ProjectCommand::Create { name: name("other") })).unwrap();
    let vms =
        [("default", ""), ("other", ""), ("default", "tier=gold"), ("other", "tier=gold disk=big")];
    let vms: Vec<_> = (1_u128..)
        .zip(vms)
        .map(|(n, (project, of))| create(&mut world, 60 + n, project, of))
        .collect();
    // Each policy comes to those before it; then which one counts for each VM.
    for (policy, project, of, expected) in [
        ("m-all", "", "", ["m-all", "m-all", "m-all", "m-all"]),
        ("z-all", "", "", ["m-all", "m-all", "m-all", "m-all"]),
        ("a-all", "", "", ["a-all", "a-all", "a-all", "a-all"]),
        ("other", "other", "", ["a-all", "other", "a-all", "other"]),
        ("gold", "", "tier=gold", ["a-all", "other", "gold", "gold"]),
        ("silver", "", "tier=silver", ["a-all", "other", "gold", "gold"]),
        ("theirs", "other", "tier=gold", ["a-all", "other", "gold", "theirs"]),
        ("big", "", "tier=gold disk=big", ["a-all", "other", "gold", "big"]),
    ] {
        world.admin(set(policy, project, of, Terms::default())).unwrap();
        let counts = vms.iter().map(|vm| {
            let policy = world.state.migration_policy_of(&world.state.vms[vm]);
            policy.map(|policy| policy.name.to_string()).unwrap_or_default()
        });
        assert_eq!(counts.collect::<Vec<_>>(), expected, "with {policy}");
    }
    let delete =
        |policy| Command::MigrationPolicy(MigrationPolicyCommand::Delete { name: name(policy) });
    world.admin(delete("big")).unwrap();
    assert_eq!(world.admin(delete("big")).unwrap_err().reason, Reason::NotFound);
    let policy = world.state.migration_policy_of(&world.state.vms[&vms[3]]).unwrap();
    assert_eq!(policy.name, name("theirs"));
    // What is asked for one migration comes before what the policy says.
    let wish = CopyWish { downtime_ms: Some(50), ..CopyWish::default() };
    let asked =
        wish.over(CopyPolicy { downtime_ms: 900, bandwidth_mib_s: 7, ..CopyPolicy::default() });
    assert_eq!((asked.downtime_ms, asked.bandwidth_mib_s), (50, 7));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut world = World::new();
    let copy = CopyPolicy::default();
    let copies = |copy| Terms { copy, ..Terms::default() };
    for (what, terms) in [
        ("policy.downtime_ms", copies(CopyPolicy { downtime_ms: 60_001, ..copy })),
        ("policy.stalled_downtime_ms", copies(CopyPolicy { stalled_downtime_ms: 299, ..copy })),
        ("policy.connections", copies(CopyPolicy { connections: 17, ..copy })),
        ("policy.rounds_max", copies(CopyPolicy { rounds_max: 0, ..copy })),
        ("policy.deadline_ms", Terms { deadline_ms: Some(999), ..Terms::default() }),
        (
            "policy.deadline_ms_per_gib",
            Terms { deadline_ms_per_gib: Some(9_999_999), ..Terms::default() },
        ),
    ] {
        let refused = world.admin(set("p", "", "", terms)).unwrap_err();
        let fields: Vec<_> = refused.violations.iter().map(|violation| &*violation.field).collect();
        assert_eq!(fields, [what]);
    }
    let refused = world.admin(set("p", "none", "", Terms::default())).unwrap_err();
    assert_eq!(refused.reason, Reason::NotFound);
    // A project that a policy is for is not removed behind its back.
    let project = |command| Command::Project(command);
    world.admin(project(ProjectCommand::Create { name: name("other") })).unwrap();
    world.admin(set("p", "other", "", Terms::default())).unwrap();
    let refused = world.admin(project(ProjectCommand::Delete { name: name("other") })).unwrap_err();
    assert_eq!(refused.reason, Reason::ProjectInUse);
}
