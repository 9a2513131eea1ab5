//! Whether bodies come to a host and stay, and what follows when that changes.

use serde::{Deserialize, Serialize};

use super::Host;
use crate::{
    Draft,
    id::{HostId, OperationId, VmId},
    limit, operation,
    principal::Principal,
    rejected::{Reason, Rejected},
};

/// Whether bodies may come to the host, and whether those on it are to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Bodies come and stay.
    #[default]
    Open,
    /// None comes; those on it stay.
    Cordoned,
    /// None comes; those on it leave.
    Draining,
}

impl Schedule {
    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Schedule::Open => "open",
            Schedule::Cordoned => "cordoned",
            Schedule::Draining => "draining",
        }
    }
}

/// Lets bodies come again, and has those come back that left when the host was drained.
pub(super) fn restore(
    draft: &mut Draft,
    id: HostId,
    operation: OperationId,
    moves: Vec<(VmId, OperationId)>,
) -> Result<(), Rejected> {
    if moves.len() > limit::BATCH_MAX {
        return Err(Rejected::new(Reason::TooLarge, "too many rows in one command"));
    }
    set(draft, id, Schedule::Open, None)?;
    let host = draft.state().hosts.get(&id).ok_or_else(|| Rejected::not_found("host", id))?.clone();
    operation::begin_restore(draft, &host, operation, moves)
}

/// A drain that is called off lets those stay that have not begun to leave.
pub(super) fn set(
    draft: &mut Draft,
    id: HostId,
    schedule: Schedule,
    operation: Option<OperationId>,
) -> Result<(), Rejected> {
    let state = draft.state();
    let host = state.hosts.get(&id).ok_or_else(|| Rejected::not_found("host", id))?;
    let host = Host { schedule, ..Host::clone(host) };
    draft.put(host.clone());
    draft.reply_object("host", id);
    if schedule == Schedule::Draining {
        let under_way = host.drain.filter(|drain| {
            draft.state().operations.get(drain).is_some_and(|drain| !drain.status.is_final())
        });
        match (under_way, operation) {
            // It is under way.
            (Some(drain), _) => draft.reply_operation(drain),
            (None, Some(operation)) => operation::begin_drain(draft, &host, operation)?,
            (None, None) => {}
        }
        operation::settle_drain(draft, id);
        return Ok(());
    }
    operation::end_drain(draft, id);
    let state = draft.state();
    let waiting: Vec<_> = state
        .instances_on(id)
        .filter_map(|body| state.migration_of(body.vm))
        .filter(|(operation, _)| operation.status == operation::Status::Queued)
        .filter(|(_, migration)| migration.way_back.is_none())
        .filter(|(operation, _)| matches!(operation.author, Principal::Node(_)))
        .map(|(operation, _)| operation.id)
        .collect();
    for operation in waiting {
        let why = "the host is not drained any more".to_owned();
        operation::end(draft, operation, operation::Status::RolledBack, why);
    }
    Ok(())
}

/// Ends the drains of hosts that are empty; called as time passes.
pub(crate) fn settle_drains(draft: &mut Draft) {
    let draining = draft.state().hosts.values().filter(|host| host.drain.is_some());
    for id in draining.map(|host| host.id).collect::<Vec<_>>() {
        operation::settle_drain(draft, id);
    }
}
