//! Operations that have parts: they hold no worker, and end when the last of their parts has.

use super::{Kind, Operation, Status, StepName, Subject, lifecycle};
use crate::{
    Draft,
    host::Host,
    id::{HostId, OperationId, VmId},
    rejected::Rejected,
    vm,
};

/// Notes that a part has ended, and ends the whole with the last.
pub(super) fn part_ended(draft: &mut Draft, id: OperationId, how: Status) {
    let Some(whole) = draft.state().operations.get(&id) else { return };
    if whole.status.is_final() {
        return;
    }
    let mut whole = Operation::clone(whole);
    if how != Status::Done {
        whole.failures += 1;
    }
    let (kind, failures, status) = (whole.kind, whole.failures, whole.status);
    draft.put(whole);
    // A drain ends when its host is empty.
    if kind == Kind::Drain || draft.state().unfinished_parts(id).next().is_some() {
        return;
    }
    match (status, failures) {
        (Status::Unwinding, _) => {
            lifecycle::end(draft, id, Status::RolledBack, "cancelled".to_owned());
        }
        (_, 0) => lifecycle::end(draft, id, Status::Done, String::new()),
        (_, n) => {
            let message = format!("{n} of its parts did not get done; see them");
            lifecycle::end(draft, id, Status::Stuck, message);
        }
    }
}

/// Ends an operation that has nothing to undo, and its parts.
pub(super) fn cancel(draft: &mut Draft, id: OperationId) {
    let parts: Vec<_> = draft.state().unfinished_parts(id).map(|part| part.id).collect();
    if parts.is_empty() {
        return lifecycle::end(draft, id, Status::RolledBack, "cancelled".to_owned());
    }
    if let Some(whole) = draft.state().operations.get(&id) {
        let whole = Operation { status: Status::Unwinding, ..Operation::clone(whole) };
        draft.put(whole);
    }
    for part in parts {
        // One that has gone too far to turn back ends by itself.
        let _ = lifecycle::cancel(draft, part);
    }
}

/// Guests begin to leave a host.
pub(crate) fn begin_drain(
    draft: &mut Draft,
    host: &Host,
    operation: OperationId,
) -> Result<(), Rejected> {
    let class = Kind::Drain.definition().class;
    let subject = Subject::Host { id: host.id, name: host.name.clone() };
    let opened = lifecycle::open_of(draft, operation, Kind::Drain, class, subject)?;
    let opened = opened.at(StepName::Empty, draft.wall_ms());
    draft.put(Operation { status: Status::Running, ..opened });
    let host = Host { drain: Some(operation), ..host.clone() };
    draft.put(host);
    draft.reply_operation(operation);
    Ok(())
}

/// Guests come back to a host that was drained: those of `moves` whose home it is, each by the operation
/// named.
pub(crate) fn begin_restore(
    draft: &mut Draft,
    host: &Host,
    operation: OperationId,
    moves: Vec<(VmId, OperationId)>,
) -> Result<(), Rejected> {
    let class = Kind::Restore.definition().class;
    let subject = Subject::Host { id: host.id, name: host.name.clone() };
    let opened = lifecycle::open_of(draft, operation, Kind::Restore, class, subject)?;
    let opened = opened.at(StepName::Return, draft.wall_ms());
    draft.put(Operation { status: Status::Running, ..opened });
    for (vm, part) in moves {
        vm::send_home(draft, vm, host.id, part, operation);
    }
    draft.reply_operation(operation);
    if draft.state().unfinished_parts(operation).next().is_none() {
        let why = "no VM is to come back to it".to_owned();
        lifecycle::end(draft, operation, Status::Done, why);
    }
    Ok(())
}

/// Ends the drain of a host that no body is left on.
pub(crate) fn settle_drain(draft: &mut Draft, id: HostId) {
    let state = draft.state();
    let Some(drain) = state.hosts.get(&id).and_then(|host| host.drain) else { return };
    if state.instances_on(id).next().is_none() {
        finish_drain(draft, id, drain, Status::Done, "");
    }
}

/// Ends the drain of a host, because it takes VMs again or is only to take no more.
pub(crate) fn end_drain(draft: &mut Draft, id: HostId) {
    // Nobody may have looked since the last has left.
    settle_drain(draft, id);
    let Some(drain) = draft.state().hosts.get(&id).and_then(|host| host.drain) else { return };
    finish_drain(draft, id, drain, Status::RolledBack, "the host is not drained any more");
}

fn finish_drain(draft: &mut Draft, id: HostId, drain: OperationId, status: Status, message: &str) {
    if let Some(host) = draft.state().hosts.get(&id) {
        let host = Host { drain: None, ..Host::clone(host) };
        draft.put(host);
    }
    let open = draft.state().operations.get(&drain).is_some_and(|drain| !drain.status.is_final());
    if open {
        lifecycle::end(draft, drain, status, message.to_owned());
    }
}
