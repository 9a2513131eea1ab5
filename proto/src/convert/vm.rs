//! VMs.

use std::collections::BTreeMap;

use domain::{
    State,
    limit::{DOWNTIME_MS_MAX, PRIORITY_MAX},
    name::Name,
    operation::CopyWish,
    rejected::{Rejected, Violation},
    vm::{
        Disk, Failover, Network, Nic, PlacementRules, RunPolicy, Scoring, Vm, VmSpec,
        default_priority, why_unknown,
    },
};

use super::time;
use crate::v1;

/// A VM as the API shows it.
#[must_use]
pub fn vm(state: &State, vm: &Vm) -> v1::Vm {
    let body = state.instance_of(vm.id);
    let host = body.and_then(|body| state.hosts.get(&body.host));
    v1::Vm {
        id: vm.id.to_string(),
        project: vm.project.to_string(),
        name: vm.name.to_string(),
        spec: Some(spec(&vm.spec)),
        phase: state.phase(vm).as_str().to_owned(),
        host: host.map(|host| host.name.to_string()).unwrap_or_default(),
        instance: body.map(|body| body.id.to_string()).unwrap_or_default(),
        operation: vm.operation.map(|id| id.to_string()).unwrap_or_default(),
        message: trouble(state, vm).unwrap_or_default(),
        restarts: vm.restarts.count,
        restart_needed: body.is_some_and(|body| body.generation != vm.generation),
        created_at: time(vm.created_wall_ms),
        etag: vm.revision.as_u64(),
    }
}

/// What keeps a VM from being as it is wanted, as far as it is known.
#[must_use]
pub fn trouble(state: &State, vm: &Vm) -> Option<String> {
    let body = state.instance_of(vm.id);
    why_unknown(state, vm)
        .map(|why| match &vm.placement_failure {
            Some(failure) => format!("{why}; {failure}"),
            None => why,
        })
        .or_else(|| body.and_then(|body| body.failure.clone()))
        .or_else(|| vm.placement_failure.clone())
}

/// A spec as the API shows it.
#[must_use]
pub fn spec(spec: &VmSpec) -> v1::VmSpec {
    v1::VmSpec {
        vcpus: spec.vcpus,
        memory_mib: spec.memory_mib,
        image: spec.image.to_string(),
        root_disk_mib: spec.root_disk_mib,
        disks: spec.disks.iter().map(|disk| v1::Disk { size_mib: disk.size_mib }).collect(),
        nics: spec.nics.iter().map(nic).collect(),
        cmdline: spec.cmdline.clone(),
        user_data: spec.user_data.clone(),
        run_policy: run_policy(spec.run_policy).to_owned(),
        failover: spec.failover.as_str().to_owned(),
        failover_priority: Some(u32::from(spec.failover_priority)),
        failover_after: spec.failover_after.iter().map(ToString::to_string).collect(),
        deletion_protection: spec.deletion_protection,
        host: spec.host.as_ref().map(ToString::to_string).unwrap_or_default(),
        pool: spec.pool.as_ref().map(ToString::to_string).unwrap_or_default(),
        labels: shown(&spec.labels),
        placement: (!spec.placement.is_default()).then(|| v1::PlacementRules {
            host_labels: shown(&spec.placement.host_labels),
            near: shown(&spec.placement.near),
            apart_from: shown(&spec.placement.apart_from),
            domain: spec.placement.domain.as_ref().map(ToString::to_string).unwrap_or_default(),
            scoring: spec.placement.scoring.as_str().to_owned(),
        }),
    }
}

fn shown<M: FromIterator<(String, String)>>(labels: &BTreeMap<Name, String>) -> M {
    labels.iter().map(|(label, value)| (label.to_string(), value.clone())).collect()
}

fn nic(nic: &Nic) -> v1::Nic {
    let network = match &nic.network {
        Network::Nat => "nat".to_owned(),
        Network::Bridge(name) => format!("bridge:{name}"),
    };
    v1::Nic { network }
}

const fn run_policy(policy: RunPolicy) -> &'static str {
    match policy {
        RunPolicy::Always => "always",
        RunPolicy::OnFailure => "on_failure",
        RunPolicy::Manual => "manual",
    }
}

/// Reads a spec.
///
/// # Errors
/// All fields that cannot be read.
pub fn read_spec(spec: Option<v1::VmSpec>) -> Result<VmSpec, Rejected> {
    let mut problems = Problems::default();
    let Some(spec) = spec else {
        problems.add("spec", "is missing");
        return Err(problems.into_rejected());
    };
    let image = problems.name("spec.image", &spec.image);
    let host = match spec.host.as_str() {
        "" => None,
        host => problems.name("spec.host", host),
    };
    let pool = match spec.pool.as_str() {
        "" => None,
        pool => problems.name("spec.pool", pool),
    };
    let run_policy = match spec.run_policy.as_str() {
        "always" => RunPolicy::Always,
        "" | "on_failure" => RunPolicy::OnFailure,
        "manual" => RunPolicy::Manual,
        _ => {
            problems.add("spec.run_policy", "use always, on_failure or manual");
            RunPolicy::Manual
        }
    };
    let failover = match spec.failover.as_str() {
        "" | "stay" => Failover::Stay,
        "rebuild" => Failover::Rebuild,
        "restart" => Failover::Restart,
        _ => {
            problems.add("spec.failover", "use stay, rebuild or restart");
            Failover::Stay
        }
    };
    let priority = spec.failover_priority.map_or(Ok(default_priority()), u8::try_from);
    let failover_priority = priority.unwrap_or_else(|_| {
        problems.add("spec.failover_priority", &format!("must be 0 to {PRIORITY_MAX}"));
        0
    });
    let mut failover_after = Vec::new();
    for name in &spec.failover_after {
        failover_after.extend(problems.name("spec.failover_after", name));
    }
    let mut nics = Vec::new();
    for (index, nic) in spec.nics.iter().enumerate() {
        let field = format!("spec.nics[{index}].network");
        match nic.network.split_once(':') {
            None if nic.network == "nat" => nics.push(Nic { network: Network::Nat }),
            Some(("bridge", bridge)) => {
                let bridge = problems.name(&field, bridge);
                nics.extend(bridge.map(|bridge| Nic { network: Network::Bridge(bridge) }));
            }
            _ => problems.add(&field, "use nat or bridge:NAME"),
        }
    }
    let labels = problems.labels("spec.labels", spec.labels);
    let placement = read_rules(&mut problems, spec.placement.unwrap_or_default());
    let Some(image) = image.filter(|_| problems.0.is_empty()) else {
        return Err(problems.into_rejected());
    };
    Ok(VmSpec {
        vcpus: spec.vcpus,
        memory_mib: spec.memory_mib,
        image,
        root_disk_mib: spec.root_disk_mib,
        disks: spec.disks.iter().map(|disk| Disk { size_mib: disk.size_mib }).collect(),
        pool,
        nics,
        cmdline: spec.cmdline,
        user_data: spec.user_data,
        run_policy,
        failover,
        failover_priority,
        failover_after,
        deletion_protection: spec.deletion_protection,
        host,
        labels,
        placement,
    })
}

fn read_rules(problems: &mut Problems, rules: v1::PlacementRules) -> PlacementRules {
    PlacementRules {
        host_labels: problems.labels("spec.placement.host_labels", rules.host_labels),
        near: problems.labels("spec.placement.near", rules.near),
        apart_from: problems.labels("spec.placement.apart_from", rules.apart_from),
        domain: match rules.domain.as_str() {
            "" => None,
            label => problems.name("spec.placement.domain", label),
        },
        scoring: match rules.scoring.as_str() {
            "" | "spread" => Scoring::Spread,
            "pack" => Scoring::Pack,
            _ => {
                problems.add("spec.placement.scoring", "use spread or pack");
                Scoring::Spread
            }
        },
    }
}

/// Problems of a request, gathered so that all are told at once.
#[derive(Default)]
struct Problems(Vec<Violation>);

impl Problems {
    fn add(&mut self, field: &str, message: &str) {
        self.0.push(Violation::new(field, message));
    }

    fn name(&mut self, field: &str, text: &str) -> Option<Name> {
        let name = Name::new(text).map_err(|error| self.add(field, &error.to_string()));
        name.ok()
    }

    fn labels(
        &mut self,
        field: &str,
        labels: impl IntoIterator<Item = (String, String)>,
    ) -> BTreeMap<Name, String> {
        let mut read = BTreeMap::new();
        for (label, value) in labels {
            if let Some(label) = self.name(field, &label) {
                read.insert(label, value);
            }
        }
        read
    }

    fn into_rejected(self) -> Rejected {
        match Rejected::unless_empty(self.0) {
            Err(rejected) => rejected,
            Ok(()) => super::invalid("spec", "is not valid"),
        }
    }
}

/// Reads what is wanted of a migration otherwise than its policy says, and its priority.
///
/// # Errors
/// The field that is out of bounds.
pub fn read_migration(message: &v1::MigrateVmRequest) -> Result<(CopyWish, u8), Rejected> {
    let priority = u8::try_from(message.priority).ok().filter(|priority| *priority <= PRIORITY_MAX);
    let Some(priority) = priority else {
        return Err(super::invalid("priority", format!("must be 0 to {PRIORITY_MAX}")));
    };
    if message.downtime_ms > DOWNTIME_MS_MAX {
        return Err(super::invalid("downtime_ms", format!("must be at most {DOWNTIME_MS_MAX}")));
    }
    let given = |value: u32| (value > 0).then_some(value);
    let wish = CopyWish {
        bandwidth_mib_s: given(message.bandwidth_mib_per_second),
        downtime_ms: given(message.downtime_ms),
        auto_converge: message.never_slow_down.then_some(false),
    };
    Ok((wish, priority))
}
