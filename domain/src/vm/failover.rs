//! Starting a VM elsewhere because its host was lost: who may, why the others wait, and what it does.
//!
//! Nothing is started elsewhere on a suspicion. The host's [`Evidence`] must cover the body, and what
//! it covers has ended.

use super::{Desired, Failover, Vm};
use crate::{
    Draft, State,
    cluster::PROTOCOL_FORGIVE,
    host::{Evidence, Fencing, Host, Status},
    id::{OperationId, VmId},
    instance::{self, Instance, Phase, Role},
    limit,
    operation::{self, Kind, Operation},
};

/// Whether the VM is to be started elsewhere, and could be now.
#[must_use]
pub fn awaits_failover(state: &State, vm: &Vm) -> bool {
    let wanted = match vm.desired {
        Desired::Running | Desired::Paused => !vm.deleting,
        Desired::Stopped | Desired::Killed => false,
    };
    let Some(body) = state.instance_of(vm.id) else { return false };
    wanted
        && vm.spec.failover.goes_elsewhere()
        && has_ended(state, body)
        && !state.may_have_a_twin(body)
        && match state.spare_of(vm.id) {
            None => true,
            // What is left on a machine that is gone too, or was left by its guest, holds nobody up.
            Some(spare) => {
                spare.role == Role::Retiring
                    && (has_ended(state, spare) || spare.phase == Phase::Yielded)
            }
        }
}

/// Whether the body's guest is known to have ended with its host.
fn has_ended(state: &State, body: &Instance) -> bool {
    let host = state.hosts.get(&body.host);
    host.and_then(|host| host.ended).is_some_and(|evidence| evidence.covers(body))
}

/// Whether the VM comes from a lost host.
#[must_use]
pub fn is_failing_over(state: &State, vm: &Vm) -> bool {
    let operation = vm.operation.and_then(|id| state.operations.get(&id));
    operation.is_some_and(|operation| operation.kind == Kind::Failover)
}

/// Takes a VM off its lost host, so that it is placed anew. What is left there is removed when the host
/// is back.
pub(crate) fn relocate(draft: &mut Draft, id: VmId, operation: OperationId) {
    let state = draft.state();
    let Some(vm) = state.vms.get(&id).filter(|vm| awaits_failover(state, vm)).cloned() else {
        return;
    };
    let Some(body) = state.instance_of(id).cloned() else { return };
    let Some(host) = state.hosts.get(&body.host).cloned() else { return };
    if let Some(spare) = state.spare_of(id).map(|spare| spare.id) {
        draft.delete::<Instance>(spare);
    }
    instance::retire(draft, Instance::clone(&body));
    // A guest that ended with its host, as often as that may be, did not crash.
    let forgives = draft.state().protocol_version >= PROTOCOL_FORGIVE;
    let restarts = if forgives { vm.restarts.forgiven() } else { vm.restarts };
    // One that is under way goes on with the new body.
    if vm.operation.is_some() {
        if restarts != vm.restarts {
            draft.put(Vm { restarts, ..Vm::clone(&vm) });
        }
        return operation::begin(draft, id);
    }
    let opened = operation::open(draft, operation, Kind::Failover, &vm.project, &vm.name, id);
    if let Ok(opened) = opened {
        let disks = match &vm.spec.pool {
            Some(pool) => format!("it finds its disks in pool {pool}"),
            None => "its disks are made anew from the image".to_owned(),
        };
        let message = format!("{}; {disks}", lost(&host));
        draft.put(Operation { message, priority: vm.spec.failover_priority, ..opened });
        draft.put(Vm { operation: Some(operation), restarts, ..Vm::clone(&vm) });
    }
}

fn lost(host: &Host) -> String {
    let how = match host.ended {
        Some(Evidence::Guard) if host.fencing == Fencing::Watchdog => {
            "its guard has ended the guest, or its watchdog has reset it"
        }
        Some(Evidence::Guard) => "its guard has ended the guest",
        Some(Evidence::Agent) => "its power was cut by its fencing agent",
        Some(Evidence::Person) => "somebody has seen that it is off",
        None => "it is not known whether it runs",
    };
    format!("host {} was lost: {how}", host.name)
}

/// Why it is not known whether the VM's guest runs, and what would help; `None` when it is known.
#[must_use]
pub fn why_unknown(state: &State, vm: &Vm) -> Option<String> {
    let Some(body) = state.instance_of(vm.id) else {
        let pool = vm.spec.pool.as_ref().filter(|_| vm.deleting)?;
        return Some(format!("its disks are removed when a host with its pool {pool} is heard of"));
    };
    if state.may_have_a_twin(body) && !vm.deleting {
        return Some(format!(
            "it is from before the cluster was recovered, and may run on a host that has not come back; it goes \
             on when every host of then is back for {} s, or confirmed dead",
            limit::LOOK_OVER_MS / 1_000
        ));
    }
    let host = state.hosts.get(&body.host).filter(|host| host.status == Status::Lost)?;
    if vm.deleting {
        return Some(format!(
            "host {0} is not heard of; it goes when the host is back, or once you have seen that the host is \
             off: novacron host confirm-dead {0}",
            host.name
        ));
    }
    if has_ended(state, body) {
        let stays = match vm.spec.failover {
            Failover::Stay => "it waits for its host, since its failover is stay",
            Failover::Rebuild | Failover::Restart => {
                "it is started elsewhere in its turn, if it is to run"
            }
        };
        return Some(format!("{}; {stays}", lost(host)));
    }
    let missing = match (host.fencing, vm.spec.failover) {
        (_, Failover::Stay) => "its failover is stay, so its guest may run on there",
        (Fencing::None, Failover::Rebuild | Failover::Restart) => "no guard ends its guest there",
        (Fencing::Guard, Failover::Rebuild | Failover::Restart) => {
            "the host's guard spares it until its next start, or does not count (failover-by-guard)"
        }
        (Fencing::Watchdog, Failover::Rebuild | Failover::Restart) => {
            "the host's guard spares it until its next start, or does not count (failover-by-watchdog)"
        }
    };
    Some(format!(
        "host {0} is not heard of and {missing}; it goes on when the host is back, or once you have seen \
         that the host is off: novacron host confirm-dead {0}",
        host.name
    ))
}
