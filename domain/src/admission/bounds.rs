//! Amounts and lengths.

use crate::{
    State, limit,
    rejected::Violation,
    vm::{Failover, VmSpec},
};

pub(super) fn check(_: &State, spec: &VmSpec, violations: &mut Vec<Violation>) {
    let mut within = |field: &str, value: u32, min: u32, max: u32| {
        if !(min..=max).contains(&value) {
            let message = format!("is {value}; it must be {min} to {max}");
            violations.push(Violation::new(field, message));
        }
    };
    within("spec.vcpus", spec.vcpus, 1, limit::VCPUS_MAX);
    within("spec.memory_mib", spec.memory_mib, limit::MEMORY_MIB_MIN, limit::MEMORY_MIB_MAX);
    let priority = u32::from(spec.failover_priority);
    within("spec.failover_priority", priority, 0, u32::from(limit::PRIORITY_MAX));
    within("spec.root_disk_mib", spec.root_disk_mib, 0, limit::DISK_MIB_MAX);
    for (index, disk) in spec.disks.iter().enumerate().take(limit::DISKS_MAX) {
        let field = format!("spec.disks[{index}].size_mib");
        within(&field, disk.size_mib, 1, limit::DISK_MIB_MAX);
    }
}

pub(super) fn check_texts(_: &State, spec: &VmSpec, violations: &mut Vec<Violation>) {
    let mut at_most = |field: &str, what: &str, count: usize, max: usize| {
        if count > max {
            let message = format!("has {count} {what}; at most {max} are allowed");
            violations.push(Violation::new(field, message));
        }
    };
    at_most("spec.disks", "disks", spec.disks.len(), limit::DISKS_MAX);
    at_most("spec.nics", "network cards", spec.nics.len(), limit::NICS_MAX);
    at_most("spec.failover_after", "VMs", spec.failover_after.len(), limit::FAILOVER_AFTER_MAX);
    at_most("spec.user_data", "bytes", spec.user_data.len(), limit::USER_DATA_BYTES_MAX);
    at_most("spec.cmdline", "bytes", spec.cmdline.len(), limit::CMDLINE_BYTES_MAX);
    let rules = &spec.placement;
    for (field, labels) in [
        ("spec.labels", &spec.labels),
        ("spec.placement.host_labels", &rules.host_labels),
        ("spec.placement.near", &rules.near),
        ("spec.placement.apart_from", &rules.apart_from),
    ] {
        at_most(field, "labels", labels.len(), limit::LABELS_MAX);
        for (label, value) in labels {
            let field = format!("{field}.{label}");
            at_most(&field, "bytes", value.len(), limit::LABEL_VALUE_BYTES_MAX);
        }
    }
    if !rules.near.is_empty() && rules.near == rules.apart_from {
        let message = "is the same as spec.placement.near: no VM can be both; remove one";
        violations.push(Violation::new("spec.placement.apart_from", message));
    }
    if rules.domain.is_some() && !rules.has_neighbours() {
        let message = "means something only with near or apart_from; add one, or remove it";
        violations.push(Violation::new("spec.placement.domain", message));
    }
    let wrong = match (spec.failover, &spec.host, &spec.pool) {
        (Failover::Stay, ..) => None,
        (Failover::Rebuild | Failover::Restart, Some(_), _) => {
            Some("a VM that is pinned to one host cannot be started on another; use stay")
        }
        (Failover::Rebuild, None, Some(_)) => {
            Some("disks that lie in a pool are not made anew; use restart or stay")
        }
        (Failover::Restart, None, None) => {
            Some("disks on a host are lost with it; give the VM a pool, or use rebuild or stay")
        }
        (Failover::Rebuild, None, None) | (Failover::Restart, None, Some(_)) => None,
    };
    if let Some(message) = wrong {
        violations.push(Violation::new("spec.failover", message));
    }
    if spec.cmdline.chars().any(char::is_control) {
        violations.push(Violation::new("spec.cmdline", "has a control character; remove it"));
    }
    if spec.user_data.contains('\0') {
        violations.push(Violation::new("spec.user_data", "has a NUL character; remove it"));
    }
}
