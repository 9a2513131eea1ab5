//! Leaving a host: who may, and how it is asked for.

use super::{
    Desired, Vm,
    transition::{existing, idle},
};
use crate::{
    Draft, State,
    host::Schedule,
    id::{HostId, OperationId, VmId},
    instance::Phase as Body,
    operation::{self, CopyWish, Kind, Migration, Operation, StepName},
    rejected::{Reason, Rejected},
};

/// Before what people ask for one by one, unless they say otherwise.
const EVACUATION_PRIORITY: u8 = 50;

pub(super) fn migrate(
    draft: &mut Draft,
    id: VmId,
    to: Option<HostId>,
    wish: CopyWish,
    priority: u8,
    operation: OperationId,
) -> Result<(), Rejected> {
    let vm = existing(draft, id, None)?;
    may_leave(draft.state(), &vm)?;
    let state = draft.state();
    if to.is_some() && to == state.instance_of(id).map(|body| body.host) {
        let message = format!("VM {} is on that host already", vm.name);
        return Err(Rejected::new(Reason::HostUnfit, message));
    }
    let policy = state.migration_policy_of(&vm);
    let mut terms = policy.map(|policy| policy.terms).unwrap_or_default();
    terms.copy = wish.over(terms.copy);
    let migration =
        Some(Box::new(Migration::new(to, terms, policy.map(|policy| policy.name.clone()))));
    let opened = operation::open(draft, operation, Kind::Migrate, &vm.project, &vm.name, id)?;
    let opened = opened.at(StepName::Reserve, draft.wall_ms());
    draft.put(Operation { priority, migration, ..opened });
    draft.put(Vm { operation: Some(operation), ..vm });
    draft.reply_operation(operation);
    draft.reply_object("vm", id);
    Ok(())
}

/// Whether the VM could be migrated now, with its guest if that executes.
///
/// # Errors
/// Why it cannot.
pub fn may_leave(state: &State, vm: &Vm) -> Result<(), Rejected> {
    idle(vm)?;
    if !state.instance_of(vm.id).is_some_and(|body| can_leave(body.phase, vm.desired)) {
        let message = format!(
            "VM {} is {}; it can leave when it runs, is paused or is stopped",
            vm.name,
            state.phase(vm).as_str()
        );
        return Err(Rejected::new(Reason::VmState, message));
    }
    if !state.instance_of(vm.id).is_some_and(|body| state.is_known(body)) {
        let message = format!("the host of VM {} is not heard of", vm.name);
        return Err(Rejected::new(Reason::VmState, message));
    }
    if let Some(pinned) = &vm.spec.host {
        let message = format!("VM {} is pinned to host {pinned}", vm.name);
        return Err(Rejected::new(Reason::VmState, message));
    }
    if state.spare_of(vm.id).is_some() {
        let message = format!("what another host has of VM {} is still being removed", vm.name);
        return Err(Rejected::new(Reason::VmBusy, message));
    }
    Ok(())
}

/// Whether a body is as its VM is to be: nothing is under way that would change while it moves.
pub(crate) const fn can_leave(body: Body, desired: Desired) -> bool {
    match desired {
        Desired::Running => matches!(body, Body::Running),
        Desired::Paused => matches!(body, Body::Paused),
        Desired::Stopped | Desired::Killed => body.is_at_rest(),
    }
}

/// Has a guest leave a host that is being drained, unless it has left or cannot.
pub(crate) fn evacuate(draft: &mut Draft, id: VmId, operation: OperationId) {
    let state = draft.state();
    let host = state.instance_of(id).and_then(|body| state.hosts.get(&body.host));
    if host.is_some_and(|host| host.schedule == Schedule::Draining) {
        let drain = host.and_then(|host| host.drain);
        // What refuses it now is looked at again in the next round.
        let _ = migrate(draft, id, None, CopyWish::default(), EVACUATION_PRIORITY, operation);
        if let Some(drain) = drain {
            belongs(draft, operation, drain);
        }
    }
}

/// Makes an operation that was opened a part of `whole`.
fn belongs(draft: &mut Draft, operation: OperationId, whole: OperationId) {
    let operations = &draft.state().operations;
    if let (Some(opened), Some(whole)) = (operations.get(&operation), operations.get(&whole)) {
        let part = Operation::clone(opened).part_of(whole);
        draft.put(part);
    }
}

/// Has a guest come back to the host that it left because that was drained, as a part of `whole`.
pub(crate) fn send_home(
    draft: &mut Draft,
    id: VmId,
    host: HostId,
    operation: OperationId,
    whole: OperationId,
) {
    let home = draft.state().vms.get(&id).and_then(|vm| vm.home);
    if home != Some(host) {
        return;
    }
    // What is busy, or neither runs nor rests, stays where it is.
    let wish = CopyWish::default();
    let _ = migrate(draft, id, Some(host), wish, EVACUATION_PRIORITY, operation);
    belongs(draft, operation, whole);
}
