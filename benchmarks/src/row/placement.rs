//! Row 7: decisions of the planner by itself, with the reasons for those that fit nowhere.

use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use domain::{
    State,
    cluster::{Cluster, ClusterCommand, Founding, PROTOCOL_VERSION},
    envelope::{Command, Envelope},
    host::{Capacity, Grant, HostCommand},
    id::Digest,
    image::ImageCommand,
    name::Name,
    principal::Principal,
    vm::{VmCommand, VmSpec},
};
use newtype_uuid::{GenericUuid, TypedUuid, TypedUuidKind};
use planner::place::place;

use crate::{
    book::{Aim, Book},
    field::Extent,
};

/// So many hosts, and what is to be reached with them.
const AIMS: [(u64, f64); 2] = [(1_000, 50_000.0), (10_000, 20_000.0)];
/// VMs that are placed.
const VMS: u64 = 10_000;

/// Measures the row.
pub(crate) fn measure(extent: &Extent, book: &mut Book) -> Result<()> {
    for (hosts, aim) in AIMS {
        let (hosts, vms) = (hosts / extent.fewer, VMS / extent.fewer);
        let state = world(hosts, vms)?;
        let mut per_s = Vec::new();
        for _ in 0..extent.rounds {
            let begun = Instant::now();
            let placement = place(&state, usize::MAX);
            per_s.push(vms as f64 / begun.elapsed().as_secs_f64());
            ensure!(placement.placed.len() as u64 == vms, "some fit nowhere");
        }
        book.alone(7, &format!("{hosts} hosts"), "placements per s", per_s, Aim::AtLeast(aim));
    }
    Ok(())
}

fn id<K: TypedUuidKind>(number: u64) -> TypedUuid<K> {
    TypedUuid::from_untyped_uuid(uuid::Uuid::from_u128(number.into()))
}

/// A cluster with so many hosts that are empty, and so many VMs that have none.
fn world(hosts: u64, vms: u64) -> Result<State> {
    let mut state = State::default();
    let founding = Founding {
        cluster: Cluster { id: id(1), name: Name::new("bench")? },
        protocol_version: PROTOCOL_VERSION,
        node: 1,
        node_name: Name::new("n1")?,
        peer_address: String::new(),
        api_address: String::new(),
        store: id(1),
        key_sha256: Digest::ZERO,
        admin: id(1),
        admin_sha256: Digest::ZERO,
        tokens: Vec::new(),
    };
    let found = Command::Cluster(ClusterCommand::Found(Box::new(founding)));
    apply(&mut state, Principal::Founder, found)?;
    for number in 1..=hosts {
        let grant = Grant {
            host: id(number),
            name: Name::new(&format!("h{number}"))?,
            driver: Name::new("simulator")?,
            capacity: Capacity {
                cpu_millicores: 64_000,
                memory_mib: 256 * 1024,
                disk_mib: 1 << 30,
            },
            reserved: Capacity::default(),
            boot: id(number),
            foreign: 0,
        };
        let grant = Command::Host(HostCommand::Grant(Box::new(grant)));
        apply(&mut state, Principal::Node(1), grant)?;
    }
    let admin = Principal::Credential(id(1));
    let image = Name::new("none")?;
    let create = ImageCommand::Create {
        image: id(1),
        name: image.clone(),
        files: Vec::new(),
        origin: String::new(),
        holder: None,
    };
    apply(&mut state, admin.clone(), Command::Image(create))?;
    let spec = serde_json::json!({ "vcpus": 1, "memory_mib": 128, "image": image.as_str() });
    let spec: VmSpec = serde_json::from_value(spec)?;
    for number in 1..=vms {
        let create = VmCommand::Create {
            vm: id(number),
            project: Name::default_project(),
            name: Name::new(&format!("vm{number}"))?,
            spec: Box::new(spec.clone()),
            start: true,
            operation: id(number),
        };
        apply(&mut state, admin.clone(), Command::Vm(create))?;
    }
    Ok(state)
}

fn apply(state: &mut State, principal: Principal, command: Command) -> Result<()> {
    let envelope =
        Envelope { at_ms: 1, wall_ms: 1, principal, request: None, trace: None, command };
    let applied = state.apply(state.index + 1, envelope);
    applied.reply.map_err(|rejected| anyhow!("{rejected}"))?;
    *state = applied.state;
    Ok(())
}
