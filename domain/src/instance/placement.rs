//! Putting a VM on a host. The planner proposes; whether it fits is decided here.

use serde::{Deserialize, Serialize};

use super::{Instance, Phase};
use crate::{
    Draft,
    host::{self, Capacity},
    id::{HostId, InstanceId, VmId},
    operation,
    vm::Vm,
};

/// A proposal: this VM's body on that host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The VM.
    pub vm: VmId,
    /// The new body's id, minted by the proposer.
    pub instance: InstanceId,
    /// The host.
    pub host: HostId,
}

/// Places one VM, unless the state has moved on since the plan; the next plan sees why.
pub(super) fn place(draft: &mut Draft, row: Place) {
    let state = draft.state();
    let Some(vm) = state.vms.get(&row.vm).filter(|vm| !vm.deleting).cloned() else { return };
    let Some(host) = state.hosts.get(&row.host) else { return };
    let fits = host.status == host::Status::Ready
        && vm.spec.host.as_ref().is_none_or(|name| *name == host.name)
        && Capacity::of(&vm.spec).fits(host.allocatable(), state.used_on(host.id));
    if !fits || state.instance_of(vm.id).is_some() || state.instances.contains_key(&row.instance) {
        return;
    }
    let fence = draft.revision();
    draft.put(Instance {
        id: row.instance,
        vm: vm.id,
        host: row.host,
        fence,
        phase: Phase::Reserved,
        spec: vm.spec.clone(),
        generation: vm.generation,
        booked: Capacity::of(&vm.spec),
        reboots: 0,
        starts: 0,
        ended: None,
        failure: None,
        revision: fence,
    });
    if vm.placement_failure.is_some() {
        draft.put(Vm { placement_failure: None, ..Vm::clone(&vm) });
    }
    operation::begin(draft, vm.id);
}
