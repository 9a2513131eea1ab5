//! What a person may do with an operation that cannot go on by itself.

use super::{Kind, Migration, Operation, Status, lifecycle, migration, queue, step};
use crate::{
    Draft,
    id::{HostId, OperationId, VmId},
    instance::{Instance, Phase as Body},
    rejected::{Reason, Rejected},
    vm::{Desired, Vm},
};

/// From its first step: a body that could not be made is made once more.
pub(super) fn retry(draft: &mut Draft, id: OperationId) -> Result<(), Rejected> {
    let operation = stuck(draft, id)?;
    if let Some(vm) = operation.vm() {
        retry_failed(draft, vm);
    }
    resume(draft, id)
}

/// The cause may be gone for which a VM's body failed, so it is made once more.
pub(crate) fn retry_failed(draft: &mut Draft, vm: VmId) {
    if let Some(body) = draft.state().instance_of(vm)
        && body.phase == Body::Failed
    {
        let body = Instance { phase: Body::Reserved, failure: None, ..Instance::clone(body) };
        draft.put(body);
    }
}

/// Where it is, with all its time and retries before it again.
pub(super) fn resume(draft: &mut Draft, id: OperationId) -> Result<(), Rejected> {
    let operation = stuck(draft, id)?;
    let state = draft.state();
    let now_ms = state.now_ms;
    let deadline_ms = now_ms + state.setting(operation.kind.definition().deadline);
    if operation.is_parent() {
        let message = format!("operation {id} only waited for its parts; begin it anew");
        return Err(Rejected::new(Reason::NotStuck, message));
    }
    queue::room(state, operation.class)?;
    let ready = operation.host().is_some_and(|host| is_heard(draft, host));
    let (status, ready, migration) = match operation.migration.as_deref().cloned() {
        None => (Status::Queued, ready, None),
        // It goes on, and needs no turn.
        Some(migration) if migration.step.is_past_switch() => {
            (Status::Running, ready, Some(Box::new(migration)))
        }
        // The way back is begun anew.
        Some(migration) => {
            let migration =
                Migration { step: migration::Step::Reserve, progress: None, ..migration };
            (Status::Queued, true, Some(Box::new(migration)))
        }
    };
    let again = Operation {
        status,
        migration,
        ready,
        deadline_ms,
        accepted_ms: now_ms,
        ended_wall_ms: 0,
        failures: 0,
        message: String::new(),
        parent: None,
        ..operation.clone()
    };
    let again = step::noted(draft.state(), again, draft.wall_ms());
    draft.put(again);
    draft.reply_operation(id);
    if let Some(vm) = operation.vm() {
        if let Some(row) = draft.state().vms.get(&vm) {
            let row = Vm { operation: Some(id), ..Vm::clone(row) };
            draft.put(row);
        }
        queue::begin(draft, vm);
        lifecycle::settle(draft, vm);
    }
    Ok(())
}

/// What was wanted before is wanted again, and nobody waits for it.
pub(super) fn abandon(draft: &mut Draft, id: OperationId) -> Result<(), Rejected> {
    let operation = stuck(draft, id)?;
    if operation.kind == Kind::Delete {
        let message = format!("operation {id} may have removed disks already; retry it");
        return Err(Rejected::new(Reason::NotCancellable, message));
    }
    draft.reply_operation(id);
    if has_come_about(draft, &operation) {
        let message = format!("it came about later; {}", operation.message);
        draft.put(Operation { status: Status::Done, message, ..operation });
        return Ok(());
    }
    let row = operation.vm().and_then(|vm| draft.state().vms.get(&vm));
    if operation.kind == Kind::Create
        && let Some(row) = row.filter(|row| row.restarts.started_ms > 0)
    {
        let message = format!("VM {} has run since; if it is not wanted, delete it", row.name);
        return Err(Rejected::new(Reason::NotCancellable, message));
    }
    let message = format!("abandoned; {}", operation.message);
    draft.put(Operation { status: Status::RolledBack, message, ..operation.clone() });
    let Some(vm) = operation.vm() else { return Ok(()) };
    match operation.kind {
        Kind::Create | Kind::Start | Kind::Stop | Kind::Kill | Kind::Pause | Kind::Resume => {
            lifecycle::wish_back(draft, &operation, vm);
        }
        Kind::Reboot => {
            let reboots = draft.state().instance_of(vm).map(|body| body.reboots);
            change(draft, vm, |row| row.reboots = reboots.unwrap_or(row.reboots));
        }
        Kind::Failover => change(draft, vm, |row| row.desired = Desired::Stopped),
        Kind::Migrate | Kind::Delete | Kind::Drain | Kind::Probe | Kind::Notify | Kind::Restore => {
        }
    }
    Ok(())
}

/// Whether what was asked is so by now: its host has gone on trying.
fn has_come_about(draft: &Draft, operation: &Operation) -> bool {
    let state = draft.state();
    let Some(vm) = operation.vm() else { return false };
    let (Some(row), Some(body)) = (state.vms.get(&vm), state.instance_of(vm)) else { return false };
    (operation.kind.definition().is_reached)(operation, row, body)
}

fn change(draft: &mut Draft, vm: VmId, how: impl FnOnce(&mut Vm)) {
    let Some(mut row) = draft.state().vms.get(&vm).map(|row| Vm::clone(row)) else { return };
    how(&mut row);
    row.desired_since_ms = draft.state().now_ms;
    draft.put(row);
}

fn is_heard(draft: &Draft, host: HostId) -> bool {
    draft.state().hosts.get(&host).is_some_and(|host| host.status == crate::host::Status::Ready)
}

/// The operation, if it is stuck and nothing else was asked of its VM since.
fn stuck(draft: &Draft, id: OperationId) -> Result<Operation, Rejected> {
    let state = draft.state();
    let operation =
        state.operations.get(&id).ok_or_else(|| Rejected::not_found("operation", id))?;
    let refuse = |why: String| Err(Rejected::new(Reason::NotStuck, why));
    if operation.status != Status::Stuck {
        let is = operation.status.as_str();
        return refuse(format!("operation {id} is {is}; only one that is stuck can be taken up"));
    }
    if let Some(vm) = operation.vm() {
        let Some(row) = state.vms.get(&vm) else {
            return refuse(format!("the VM of operation {id} is gone"));
        };
        if let Some(other) = row.operation {
            return refuse(format!("VM {} is busy with operation {other}", row.name));
        }
        if row.deleting && operation.kind != Kind::Delete {
            return refuse(format!("VM {} is being deleted", row.name));
        }
        if row.desired_since_ms > operation.accepted_ms {
            let name = &row.name;
            return refuse(format!(
                "VM {name} was asked for something else since, or ended by itself; ask anew"
            ));
        }
    }
    Ok(Operation::clone(operation))
}
