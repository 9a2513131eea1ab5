//! How operations begin, advance and end. They advance only in the same entry as the report that
//! satisfies them, so there is no second truth beside the bodies.

use super::{
    Class, Kind, Operation, OperationCommand, Status, Subject, kind, parent, probe, queue, step,
    stuck,
};
use newtype_uuid::GenericUuid;

use crate::{
    Draft, Revision, State, alert, host,
    id::{OperationId, VmId},
    instance::{self, Ended, Phase as Body},
    limit,
    name::Name,
    rejected::{Reason, Rejected},
    setting::Key,
    vm::{self, Desired, Vm},
};

/// Decides about operations.
pub(crate) fn decide(draft: &mut Draft, command: OperationCommand) -> Result<(), Rejected> {
    match command {
        OperationCommand::Cancel { operation } => cancel(draft, operation),
        OperationCommand::Retry { operation } => stuck::retry(draft, operation),
        OperationCommand::Resume { operation } => stuck::resume(draft, operation),
        OperationCommand::Abandon { operation } => stuck::abandon(draft, operation),
        OperationCommand::Probe { operation, class, hosts } => {
            probe::begin(draft, operation, class, hosts)
        }
        OperationCommand::Probed { operation, answer } => probe::note(draft, operation, answer),
    }
}

/// Opens the operation `id` on a VM.
pub(crate) fn open(
    draft: &mut Draft,
    id: OperationId,
    kind: Kind,
    project: &Name,
    vm_name: &Name,
    vm: VmId,
) -> Result<Operation, Rejected> {
    let subject = Subject::Vm { id: vm, project: project.clone(), name: vm_name.clone() };
    open_of(draft, id, kind, kind.definition().class, subject)
}

/// Opens the operation `id` that tells people of alerts.
pub(crate) fn open_notice(
    draft: &mut Draft,
    id: OperationId,
    alerts: Subject,
) -> Result<(), Rejected> {
    let kind = Kind::Notify;
    let opened = open_of(draft, id, kind, kind.definition().class, alerts)?;
    draft.put(Operation { ready: true, ..opened });
    Ok(())
}

/// Opens the operation `id`.
pub(super) fn open_of(
    draft: &mut Draft,
    id: OperationId,
    kind: Kind,
    class: Class,
    subject: Subject,
) -> Result<Operation, Rejected> {
    let state = draft.state();
    draft.room_for(
        "unfinished operations",
        state.operations_open.len(),
        limit::OPERATIONS_OPEN_MAX,
    )?;
    let definition = kind.definition();
    let is_parent = definition.is_parent || subject == Subject::Cluster;
    if !definition.is_urgent && !is_parent {
        queue::room(state, class)?;
    }
    let existing = match &subject {
        Subject::Vm { id, .. } => state.vms.get(id),
        Subject::Host { .. } | Subject::Cluster | Subject::Alerts { .. } => None,
    };
    let operation = Operation {
        id,
        kind,
        subject,
        class,
        trace: draft.trace(),
        parent: None,
        status: Status::Queued,
        before: existing.map(|vm| vm.desired),
        reboots: existing.map_or(0, |vm| vm.reboots + 1),
        author: draft.principal().clone(),
        message: String::new(),
        created_wall_ms: draft.wall_ms(),
        ended_wall_ms: 0,
        deadline_ms: state.now_ms + state.setting(definition.deadline),
        accepted_ms: state.now_ms,
        // A migration is asked for only of a guest that runs.
        ready: kind == Kind::Migrate,
        failures: 0,
        steps: Vec::new(),
        accepted: draft.revision(),
        priority: definition.priority,
        migration: None,
        revision: Revision::ZERO,
    };
    let operation = step::noted(state, operation, draft.wall_ms());
    draft.put(operation.clone());
    trim(draft);
    Ok(operation)
}

/// Forgets the oldest ended operations past the limit; a few at a time, since each entry adds few.
fn trim(draft: &mut Draft) {
    for _ in 0..4 {
        let ended = &draft.state().operations_ended;
        if ended.len() <= limit::OPERATIONS_KEPT_MAX {
            return;
        }
        let Some((_, oldest)) = ended.get_min().copied() else { return };
        draft.delete::<Operation>(oldest);
    }
}

/// Ends the VM's operation because a stronger one takes its place.
pub(crate) fn overtake(draft: &mut Draft, vm: &Vm, by: OperationId) {
    if let Some(operation) = vm.operation {
        let state = draft.state();
        let moved = state.operations.get(&operation).is_some_and(|row| has_moved(state, row));
        instance::abandon(draft, vm.id);
        let status = if moved { Status::Done } else { Status::RolledBack };
        end(draft, operation, status, format!("overtaken by operation {by}"));
    }
}

/// Ends the VM's operation if its goal, or the end of its undoing, is reached.
pub(crate) fn settle(draft: &mut Draft, id: VmId) {
    let Some(operation) = current(draft, id) else { return };
    if operation.kind == Kind::Migrate {
        return instance::settle_pair(draft, id);
    }
    let state = draft.state();
    let Some(vm) = state.vms.get(&id).cloned() else { return };
    let Some(body) = state.instance_of(id).cloned() else {
        // What has no body does not run.
        match (operation.status, operation.kind) {
            (Status::Unwinding, Kind::Create) | (_, Kind::Delete) => {}
            (Status::Unwinding, _) => {
                end(draft, operation.id, Status::RolledBack, "cancelled".to_owned());
            }
            (_, Kind::Stop | Kind::Kill) => {
                end(draft, operation.id, Status::Done, String::new());
            }
            _ => {}
        }
        return;
    };
    if operation.status == Status::Unwinding {
        if kind::is_as_desired(vm.desired, body.phase) {
            end(draft, operation.id, Status::RolledBack, "cancelled".to_owned());
        }
    } else if (operation.kind.definition().is_reached)(&operation, &vm, &body) {
        let message = match (operation.kind, body.ended) {
            (Kind::Stop, Some(Ended::Shutdown)) => "the guest shut itself down",
            (Kind::Stop, Some(Ended::Killed)) => "the guest did not answer; its power was cut",
            (Kind::Stop, Some(Ended::Crashed)) => "the guest crashed while shutting down",
            (Kind::Failover, _) => &operation.message,
            _ => "",
        };
        let message = message.to_owned();
        end(draft, operation.id, Status::Done, message);
    } else if body.phase == Body::Failed && !vm.deleting {
        let message = body.failure.clone().unwrap_or_default();
        end(draft, operation.id, Status::Stuck, message);
    } else {
        let message = body.failure.clone().unwrap_or_else(|| operation.message.clone());
        let next = step::noted(state, operation.clone(), draft.wall_ms());
        let next = Operation { message, ..next };
        if next != operation {
            draft.put(next);
        }
    }
}

/// Counts a failure that may pass against the retries of the VM's operation.
pub(crate) fn failed(draft: &mut Draft, vm: VmId, why: &str) {
    let Some(operation) = current(draft, vm) else { return };
    // A migration has rules of its own until its switch.
    let own = operation.migration.is_some() && !is_past_switch(&operation);
    if operation.status == Status::Queued || own {
        return;
    }
    let failures = operation.failures + 1;
    let id = operation.id;
    draft.put(Operation { failures, ..operation });
    let most = draft.state().setting(Key::OperationRetries);
    if u64::from(failures) > most {
        let message = format!("gave up after {failures} failures: {}", limit::clip(why));
        end(draft, id, Status::Stuck, message);
    }
}

/// Ends the VM's operation because its guest ended and is not to be started again.
pub(crate) fn withdraw(draft: &mut Draft, vm: VmId, ended: Ended) {
    let Some(operation) = current(draft, vm) else { return };
    let how = match ended {
        Ended::Shutdown => "the guest shut itself down",
        Ended::Killed => "the guest's power was cut",
        Ended::Crashed | Ended::Migrated => "the guest crashed",
    };
    match operation.kind {
        Kind::Create | Kind::Start | Kind::Reboot | Kind::Pause | Kind::Resume | Kind::Failover => {
            end(draft, operation.id, Status::Stuck, format!("{how}; its run policy lets it rest"));
        }
        // A migration looks at its bodies itself.
        Kind::Stop
        | Kind::Kill
        | Kind::Delete
        | Kind::Migrate
        | Kind::Drain
        | Kind::Probe
        | Kind::Notify
        | Kind::Restore => {}
    }
}

/// Ends the operations of a VM that is gone: a delete is done, a cancelled create rolled back, and nobody can take up
/// again what is stuck.
pub(crate) fn vm_gone(draft: &mut Draft, vm: VmId, operation: Option<OperationId>) {
    let from = (Some(vm), OperationId::from_untyped_uuid(uuid::Uuid::nil()));
    let stuck = draft.state().operations_stuck.range(from..).take_while(|(of, _)| *of == Some(vm));
    let stuck: Vec<OperationId> = stuck.map(|(_, id)| *id).collect();
    for id in stuck {
        let Some(operation) = draft.state().operations.get(&id).cloned() else { continue };
        let is_so = operation.kind == Kind::Delete;
        let status = if is_so { Status::Done } else { Status::RolledBack };
        let message = limit::clip(&format!("the VM is gone; {}", operation.message));
        draft.put(Operation { status, message, ..Operation::clone(&operation) });
    }
    let Some(operation) = operation.and_then(|id| draft.state().operations.get(&id)) else {
        return;
    };
    let id = operation.id;
    let (status, message) = match operation.status {
        Status::Unwinding => (Status::RolledBack, "cancelled"),
        Status::Queued | Status::Running | Status::Done | Status::RolledBack | Status::Stuck => {
            (Status::Done, "")
        }
    };
    end(draft, id, status, message.to_owned());
}

/// Ends operations whose deadline has passed; a bounded number each time.
pub(crate) fn expire(draft: &mut Draft) {
    for _ in 0..limit::BATCH_MAX {
        let state = draft.state();
        let Some((deadline_ms, id)) = state.operations_open.get_min().copied() else { return };
        if deadline_ms > state.now_ms {
            return;
        }
        let Some(operation) = state.operations.get(&id).cloned() else { return };
        if operation.kind == Kind::Migrate && !is_past_switch(&operation) {
            miss_deadline(draft, Operation::clone(&operation));
            continue;
        }
        // Who waits for a worker has done nothing that could be late, and parts end by themselves.
        let parts = state.unfinished_parts(id).next().is_some() && operation.kind != Kind::Drain;
        if operation.waits() || parts {
            let deadline_ms = state.now_ms + state.setting(operation.kind.definition().deadline);
            draft.put(Operation { deadline_ms, ..Operation::clone(&operation) });
            continue;
        }
        let why = match operation.message.as_str() {
            // What a failover has to say is why it was begun.
            message if message.is_empty() || operation.kind == Kind::Failover => {
                let vm = operation.vm().and_then(|vm| state.vms.get(&vm));
                vm.and_then(|vm| vm.placement_failure.clone())
            }
            message => Some(message.to_owned()),
        };
        let why = why.unwrap_or_else(|| match operation.host() {
            Some(host) if operation.kind == Kind::Drain => {
                format!("bodies left on the host: {}", state.instances_on(host).count())
            }
            Some(_) | None => "its host did not get it done".to_owned(),
        });
        // What people were not told they are told by a new one.
        let notice = operation.kind == Kind::Notify;
        let status = if notice { Status::RolledBack } else { Status::Stuck };
        end(draft, id, status, format!("the deadline passed: {why}"));
    }
}

/// Whether a migration's guest is elsewhere than where it was.
fn has_moved(state: &State, operation: &Operation) -> bool {
    let way_back = operation.migration.as_ref().and_then(|migration| migration.way_back);
    let body = operation.vm().and_then(|vm| state.instance_of(vm));
    way_back.map_or(is_past_switch(operation), |home| body.is_some_and(|body| body.host != home))
}

fn is_past_switch(operation: &Operation) -> bool {
    operation.migration.as_ref().is_some_and(|migration| migration.step.is_past_switch())
}

/// A migration whose deadline has passed before the switch is undone; what cannot be undone in time
/// goes on being undone, since only that is safe.
fn miss_deadline(draft: &mut Draft, operation: Operation) {
    let why = match (operation.status, operation.message.as_str()) {
        (Status::Queued, "") => "the deadline passed: no turn came".to_owned(),
        (Status::Queued, why) => format!("the deadline passed: {why}"),
        _ => "the deadline passed".to_owned(),
    };
    if operation.status == Status::Queued {
        return end(draft, operation.id, Status::RolledBack, why);
    }
    let deadline_ms = draft.state().now_ms + draft.state().setting(Key::OperationDeadlineMs);
    let vm = operation.vm();
    draft.put(Operation { deadline_ms, ..operation });
    if let Some(vm) = vm {
        instance::unwind(draft, vm, &why);
    }
}

fn cancel_migration(draft: &mut Draft, operation: &Operation, vm: VmId) -> Result<(), Rejected> {
    let yielded = draft.state().instance_of(vm).map(|body| body.phase) == Some(Body::Yielded);
    if yielded || is_past_switch(operation) {
        let message = format!("operation {} has passed its point of no return", operation.id);
        return Err(Rejected::new(Reason::NotCancellable, message));
    }
    draft.reply_operation(operation.id);
    if operation.status == Status::Queued {
        end(draft, operation.id, Status::RolledBack, "cancelled".to_owned());
    } else {
        instance::unwind(draft, vm, "cancelled");
    }
    Ok(())
}

pub(super) fn cancel(draft: &mut Draft, id: OperationId) -> Result<(), Rejected> {
    let state = draft.state();
    let operation =
        state.operations.get(&id).ok_or_else(|| Rejected::not_found("operation", id))?.clone();
    let refuse = |why: &str| {
        let message = format!("operation {id} {why}");
        Err(Rejected::new(Reason::NotCancellable, message))
    };
    match operation.status {
        Status::Unwinding => {
            draft.reply_operation(id);
            return Ok(());
        }
        Status::Done | Status::RolledBack | Status::Stuck => return refuse("has ended"),
        Status::Queued | Status::Running => {}
    }
    if operation.kind == Kind::Drain {
        return refuse("ends when its host takes VMs again: `novacron host uncordon`");
    }
    if matches!(operation.kind, Kind::Probe | Kind::Restore) {
        parent::cancel(draft, id);
        draft.reply_operation(id);
        return Ok(());
    }
    let Some(vm) = operation.vm() else { return refuse("cannot be undone") };
    if operation.kind == Kind::Migrate {
        return cancel_migration(draft, &operation, vm);
    }
    if !operation.kind.definition().is_undoable {
        return refuse("cannot be undone");
    }
    draft.reply_operation(id);
    draft.put(Operation { status: Status::Unwinding, ..Operation::clone(&operation) });
    wish_back(draft, &operation, vm);
    settle(draft, vm);
    Ok(())
}

/// What was wanted of the VM before its operation is wanted again.
pub(super) fn wish_back(draft: &mut Draft, operation: &Operation, id: VmId) {
    let state = draft.state();
    let Some(vm) = state.vms.get(&id) else { return };
    let mut vm = Vm::clone(vm);
    match operation.before {
        Some(before) => {
            vm.desired = if before == Desired::Killed { Desired::Stopped } else { before };
            vm.desired_since_ms = state.now_ms;
            if operation.kind == Kind::Stop && operation.status != Status::Queued {
                // What the guest was asked cannot be taken back, nor a call that is on its way: if it goes
                // down, it is started again.
                let late_ms = limit::DRIVER_CALL_MS_MAX + state.setting(Key::StopGraceMs);
                vm.stop_recalled_until_ms = state.now_ms + late_ms;
            }
        }
        None => vm.deleting = true,
    }
    draft.put(vm);
    host::forget_bodies(draft, id);
    vm::forget_if_gone(draft, id);
}

/// The unfinished operation of a VM.
pub(super) fn current(draft: &Draft, vm: VmId) -> Option<Operation> {
    let state = draft.state();
    let operation = state.operations.get(&state.vms.get(&vm)?.operation?)?;
    (!operation.status.is_final()).then(|| Operation::clone(operation))
}

/// Ends an operation and frees its VM for the next.
pub(crate) fn end(draft: &mut Draft, id: OperationId, status: Status, message: String) {
    let Some(operation) = draft.state().operations.get(&id).cloned() else { return };
    let (status, message) = instance::outcome(draft.state(), &operation, status, message);
    debug_assert!(operation.status.may_become(status), "{:?} -> {status:?}", operation.status);
    let ended_wall_ms = draft.wall_ms();
    draft.put(Operation { status, message, ended_wall_ms, ..Operation::clone(&operation) });
    if let Some(vm) = operation.vm().and_then(|vm| draft.state().vms.get(&vm))
        && vm.operation == Some(id)
    {
        let mut vm = Vm { operation: None, ..Vm::clone(vm) };
        if operation.kind == Kind::Migrate {
            vm.migration_failed_ms = if status == Status::Done { 0 } else { draft.state().now_ms };
        }
        draft.put(vm);
    }
    if operation.kind == Kind::Notify {
        alert::ended(draft, id, status);
    }
    if let Some(parent) = operation.parent {
        parent::part_ended(draft, parent, status);
    }
}
