//! Which VMs of lost hosts are started elsewhere now.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use domain::{
    State,
    id::VmId,
    operation::Kind,
    setting::Key,
    vm::{Vm, awaits_failover},
};

use super::{Candidate, Placement, Want, explain, target::best};

/// Plans for the VMs whose guests are known to have ended with their hosts: as many as may be on their
/// way at one time, by priority and then by age, and none before those after which it is to start. A VM
/// that fits nowhere keeps what it has on its lost host, and holds nobody up.
#[must_use]
pub fn failover(state: &State) -> Placement {
    let mut placement = Placement::default();
    let mut waiting = waiting(state);
    if waiting.is_empty() {
        return placement;
    }
    waiting.sort_by_key(|vm| (Reverse(vm.spec.failover_priority), vm.id));
    let on_its_way: BTreeSet<VmId> = state
        .unfinished_operations()
        .filter(|operation| operation.kind == Kind::Failover)
        .filter_map(|operation| operation.vm())
        .collect();
    let room = state.setting(Key::FailoversParallel).saturating_sub(on_its_way.len() as u64);
    let pending: BTreeSet<VmId> =
        waiting.iter().map(|vm| vm.id).chain(on_its_way.iter().copied()).collect();
    let mut hosts: Vec<Candidate> =
        state.hosts.values().map(|host| Candidate::of(state, host)).collect();
    let mut plan = |vm: &Vm, placement: &mut Placement| {
        let Some(body) = state.instance_of(vm.id) else { return };
        let want = Want { leaves: Some(body.host), ..Want::of(state, vm, &placement.placed) };
        match best(&hosts, &want, |_| true) {
            Some(found) => {
                hosts[found].take(&want);
                placement.placed.push((vm.id, hosts[found].host.id));
            }
            None => drop(placement.unplaceable.insert(vm.id, explain(&hosts, &want).into())),
        }
    };
    for vm in &waiting {
        if placement.placed.len() as u64 >= room {
            break;
        }
        if !waits_for_another(state, vm, &pending) {
            plan(vm, &mut placement);
        }
    }
    // Those that wait for each other would do so for ever.
    if placement.placed.is_empty() && on_its_way.is_empty() {
        let left = waiting.iter().filter(|vm| !placement.unplaceable.contains_key(&vm.id));
        for vm in left.collect::<Vec<_>>() {
            plan(vm, &mut placement);
            if !placement.placed.is_empty() {
                break;
            }
        }
    }
    placement
}

fn waiting(state: &State) -> Vec<&Arc<Vm>> {
    let ended = state.hosts.values().filter(|host| host.ended.is_some());
    let bodies = ended.flat_map(|host| state.instances_on(host.id));
    let vms = bodies.filter_map(|body| Some((body, state.vms.get(&body.vm)?)));
    vms.filter(|(body, vm)| {
        state.instance_of(vm.id).is_some_and(|active| active.id == body.id)
            && awaits_failover(state, vm)
    })
    .map(|(_, vm)| vm)
    .collect()
}

fn waits_for_another(state: &State, vm: &Vm, pending: &BTreeSet<VmId>) -> bool {
    let before = vm.spec.failover_after.iter();
    before
        .filter_map(|name| state.vm_named(&vm.project, name))
        .any(|other| other.id != vm.id && pending.contains(&other.id))
}
