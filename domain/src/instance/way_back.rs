//! The way back: a guest that shows no sign of life where it has come is taken back, by the same operation
//! and the same steps, in the other direction.

use super::pair;
use crate::{
    Draft, State,
    id::{HostId, VmId},
    operation::{Migration, Operation, Status, Step, WhenSilent},
    setting::Key,
};

const SILENT: &str = "the guest shows no sign of life on its new host";
const GOES_BACK: &str = "the guest shows no sign of life on its new host, and is taken back";
const TAKEN_BACK: &str =
    "the guest showed no sign of life on the host where it had come, and was taken back";
const NOT_TAKEN_BACK: &str =
    "the guest showed no sign of life on the host where it had come, and could not be taken back";

/// The guest shows no sign of life. By policy it is taken back, once: first what is left where it came from
/// is removed, which is older than what it has here.
pub(super) fn turn_back(draft: &mut Draft, id: VmId) {
    let state = draft.state();
    let Some((_, migration)) = state.migration_of(id) else { return };
    let Some(source) = state.spare_of(id).map(|source| source.host) else { return };
    // One that is being drained, or is lost, takes nobody back.
    let takes = state.hosts.get(&source).is_some_and(|host| host.takes_bodies());
    let first = migration.way_back.is_none();
    if migration.terms.when_silent == WhenSilent::Return && first && takes {
        pair::change(draft, id, |migration| migration.way_back = Some(source));
        tell(draft, id, GOES_BACK);
        pair::advance(draft, id, Step::Retire);
    } else {
        tell(draft, id, SILENT);
    }
}

/// Says how a migration stands.
pub(super) fn tell(draft: &mut Draft, vm: VmId, message: &str) {
    let Some((operation, _)) = draft.state().migration_of(vm) else { return };
    if operation.message != message {
        let operation = Operation::clone(operation);
        draft.put(Operation { message: message.to_owned(), ..operation });
    }
}

/// Begins the way back. It waits for its turn like any other, and has waited for longer than most.
pub(super) fn go_back(draft: &mut Draft, operation: &Operation, home: HostId) {
    let Some(migration) = operation.migration.as_deref() else { return };
    let (to, step, progress, agent) = (Some(home), Step::Reserve, None, false);
    let next = Operation {
        status: Status::Queued,
        ready: true,
        failures: 0,
        migration: Some(Box::new(Migration { to, step, progress, agent, ..migration.clone() })),
        deadline_ms: draft.state().now_ms + draft.state().setting(Key::MigrationDeadlineMs),
        ..operation.clone()
    };
    draft.put(next.at(step.into(), draft.wall_ms()));
}

/// How a migration ends. One whose guest is to be taken back was undone when that is so, and needs a
/// person otherwise.
pub(crate) fn outcome(
    state: &State,
    operation: &Operation,
    status: Status,
    message: String,
) -> (Status, String) {
    let way_back = operation.migration.as_ref().and_then(|migration| migration.way_back);
    let Some(home) = way_back else { return (status, message) };
    let body = operation.vm().and_then(|vm| state.instance_of(vm));
    let is_back = body.is_some_and(|body| body.host == home);
    match (is_back, status) {
        (true, Status::Done) => (Status::RolledBack, joined(TAKEN_BACK, "; ", &message)),
        (true, status) => (status, joined(TAKEN_BACK, "; ", &message)),
        (false, _) => (Status::Stuck, joined(NOT_TAKEN_BACK, ": ", &message)),
    }
}

fn joined(first: &str, by: &str, second: &str) -> String {
    if second.is_empty() { first.to_owned() } else { format!("{first}{by}{second}") }
}
