//! Pools: directories that several hosts see, in which disks outlive the host that wrote them.
//!
//! A pool is known by the identity that lies in it and not by its name alone: a host on which it is not
//! mounted does not have it, and one that has another under the same name is no place for its disks.

use newtype_uuid::GenericUuid;

use super::{Vm, VmSpec, transition::forget_if_gone};
use crate::{
    Draft,
    host::{Capacity, Host, Status},
    id::{InstanceId, VmId},
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

/// A body of the VM has been made on `host`, and with it the VM's disks: from now on they are looked for
/// and never made anew.
pub(crate) fn note_made(draft: &mut Draft, id: VmId, host: &Host) {
    let Some(vm) = draft.state().vms.get(&id).filter(|vm| vm.pool.is_none()) else { return };
    let Some(pool) = vm.spec.pool.as_ref().and_then(|pool| host.pools.get(pool)) else { return };
    let vm = Vm { pool: Some(*pool), ..Vm::clone(vm) };
    draft.put(vm);
}

/// A host has removed the disks of a VM that is on its way out.
pub(crate) fn note_cleared(draft: &mut Draft, id: VmId) {
    let Some(vm) = draft.state().vms.get(&id).filter(|vm| vm.pool.is_some()) else { return };
    let vm = Vm { pool: None, ..Vm::clone(vm) };
    draft.put(vm);
}

/// Has a host remove the disks of a VM that is on its way out and has no body left, if one that has them is
/// heard of.
pub(super) fn clear(draft: &mut Draft, id: VmId) {
    let state = draft.state();
    let Some(vm) = state.vms.get(&id).filter(|vm| vm.pool.is_some()) else { return };
    let has_it = |host: &&std::sync::Arc<Host>| {
        host.status == Status::Ready && missing_pool(vm, host).is_none()
    };
    let Some(host) = state.hosts.values().find(has_it) else { return };
    let fence = draft.revision();
    let body = Instance {
        // Nobody proposes it. A VM has one such body at most, and it is its last.
        id: InstanceId::from_untyped_uuid(id.into_untyped_uuid()),
        vm: id,
        host: host.id,
        role: Role::Active,
        fence,
        phase: Phase::Reserved,
        // It never runs, and takes nothing of its host.
        spec: VmSpec { vcpus: 0, memory_mib: 0, ..vm.spec.clone() },
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

/// A host has come, or has a pool that it had not: disks are removed there that nobody could remove.
pub(crate) fn clear_all(draft: &mut Draft) {
    let state = draft.state();
    let waits = |vm: &&std::sync::Arc<Vm>| vm.deleting && vm.pool.is_some();
    let waiting: Vec<_> = state.vms.values().filter(waits).map(|vm| vm.id).collect();
    waiting.into_iter().for_each(|vm| forget_if_gone(draft, vm));
}
