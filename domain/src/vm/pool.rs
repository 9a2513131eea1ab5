//! Pools: directories that several hosts see, in which disks outlive the host that wrote them.
//!
//! A pool is known by the identity that lies in it and not by its name alone: a host on which it is not
//! mounted does not have it, and one that has another under the same name is no place for its disks.

use std::sync::Arc;

use newtype_uuid::GenericUuid;

use super::{Vm, VmSpec, transition::forget_if_gone};
use crate::{
    Draft,
    host::{Capacity, Host, Status},
    id::{HostId, InstanceId, VmId},
    instance::{Instance, Phase, Role},
    operation,
};

/// Why a host cannot have the VM's disks, worded to follow a count of hosts.
#[must_use]
pub fn missing_pool(vm: &Vm, host: &Host) -> Option<String> {
    let wanted = vm.spec.pool.as_ref()?;
    match (host.pools.get(wanted), vm.pool) {
        (None, _) => Some(format!("without pool {wanted}")),
        (Some(there), Some(made)) if *there != made => {
            Some(format!("whose pool {wanted} is another one"))
        }
        (Some(_), _) => None,
    }
}

/// A body of the VM has been made, and with it the disks.
pub(crate) fn note_made(draft: &mut Draft, id: VmId) {
    let Some(vm) = draft.state().vms.get(&id) else { return };
    if vm.pool.is_some() && !vm.disks_made {
        let vm = Vm { disks_made: true, ..Vm::clone(vm) };
        draft.put(vm);
    }
}

/// A host has removed the disks of a VM that is on its way out.
pub(crate) fn note_cleared(draft: &mut Draft, id: VmId) {
    let Some(vm) = draft.state().vms.get(&id).filter(|vm| vm.pool.is_some()) else { return };
    let vm = Vm { pool: None, disks_made: false, ..Vm::clone(vm) };
    draft.put(vm);
}

/// Has a host remove the disks of a VM that is on its way out and has no body left, if one that has them is
/// heard of: the next one after `last`, which could not.
pub(crate) fn clear(draft: &mut Draft, id: VmId, last: Option<HostId>) {
    let state = draft.state();
    let Some(vm) = state.vms.get(&id).filter(|vm| vm.pool.is_some()) else { return };
    let has_it = |host: &&std::sync::Arc<Host>| {
        host.status == Status::Ready && missing_pool(vm, host).is_none()
    };
    let next =
        state.hosts.values().filter(has_it).min_by_key(|host| (Some(host.id) <= last, host.id));
    let Some(host) = next else { return };
    let fence = draft.revision();
    let body = Instance {
        id: clearing_body(id),
        vm: id,
        host: host.id,
        role: Role::Active,
        fence,
        phase: Phase::Reserved,
        // It never runs, and takes nothing of its host.
        spec: Arc::new(VmSpec { vcpus: 0, memory_mib: 0, ..VmSpec::clone(&vm.spec) }),
        generation: vm.generation,
        booked: Capacity::default(),
        reboots: vm.reboots,
        starts: 0,
        ended: None,
        failure: None,
        guarded: false,
        inherited: false,
        landing: None,
        revision: fence,
    };
    draft.put(body);
    operation::begin(draft, id);
}

/// Hosts have come or gone, or pools have: disks are removed elsewhere that could not be removed.
pub(crate) fn clear_all(draft: &mut Draft) {
    let state = draft.state();
    let waits = |vm: &&std::sync::Arc<Vm>| vm.deleting && vm.pool.is_some();
    let waiting: Vec<_> = state.vms.values().filter(waits).map(|vm| vm.id).collect();
    for vm in waiting {
        let body = draft.state().instance_of(vm).filter(|body| body.id == clearing_body(vm));
        let host = body.and_then(|body| draft.state().hosts.get(&body.host));
        // Nothing of it is there but the task.
        if let (Some(body), Some(host)) = (body, host)
            && host.status != Status::Ready
        {
            let (body, host) = (body.id, host.id);
            draft.delete::<Instance>(body);
            clear(draft, vm, Some(host));
        }
        forget_if_gone(draft, vm);
    }
}

/// The id of the body that only removes a VM's disks. Nobody proposes it; a VM has one at most, and it is its
/// last.
fn clearing_body(vm: VmId) -> InstanceId {
    InstanceId::from_untyped_uuid(vm.into_untyped_uuid())
}
