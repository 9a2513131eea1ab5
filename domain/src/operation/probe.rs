//! Asking hosts' drivers whether they answer.

use super::{Class, Kind, Operation, Status, StepName, Subject, kind, lifecycle};
use crate::{
    Draft, host,
    id::{HostId, OperationId},
    limit,
    principal::Principal,
    rejected::{Reason, Rejected, Violation},
};

/// Opens the whole and its parts.
pub(super) fn begin(
    draft: &mut Draft,
    id: OperationId,
    class: Class,
    hosts: Vec<(HostId, OperationId)>,
) -> Result<(), Rejected> {
    match class {
        Class::MonitoringAlerts | Class::CostAnalysis => {}
        Class::VmOperations | Class::Migrations => {
            let message = "must be monitoring-alerts or cost-analysis: others have their own work";
            return Rejected::unless_empty(vec![Violation::new("class", message)]);
        }
    }
    if hosts.is_empty() || hosts.len() > limit::BATCH_MAX {
        let message = format!("must be 1 to {} hosts", limit::BATCH_MAX);
        return Rejected::unless_empty(vec![Violation::new("hosts", message)]);
    }
    let whole = lifecycle::open_of(draft, id, Kind::Probe, class, Subject::Cluster)?;
    let whole = whole.at(StepName::Ask, draft.wall_ms());
    let whole = Operation { status: Status::Running, ..whole };
    draft.put(whole.clone());
    for (host, part) in hosts {
        let found = draft.state().hosts.get(&host);
        let found = found.ok_or_else(|| Rejected::not_found("host", host))?;
        let ready = found.status == host::Status::Ready;
        let subject = Subject::Host { id: host, name: found.name.clone() };
        let opened = lifecycle::open_of(draft, part, Kind::Probe, class, subject)?;
        draft.put(Operation { ready, ..opened }.part_of(&whole));
    }
    draft.reply_operation(id);
    Ok(())
}

/// Notes what came of asking a driver.
pub(super) fn note(
    draft: &mut Draft,
    id: OperationId,
    answer: Result<u64, String>,
) -> Result<(), Rejected> {
    let Principal::Node(node) = *draft.principal() else {
        return Err(Rejected::new(Reason::PermissionDenied, "only nodes ask drivers"));
    };
    let state = draft.state();
    let Some(part) = state.operations.get(&id).cloned() else {
        return Err(Rejected::not_found("operation", id));
    };
    let drives = part.host().and_then(|host| state.hosts.get(&host));
    if part.kind != Kind::Probe
        || part.status != Status::Running
        || drives.is_none_or(|host| host.node != node)
    {
        return Err(Rejected::new(Reason::Fenced, "nobody waits for this answer any more"));
    }
    match answer {
        Ok(took_ms) => lifecycle::end(draft, id, Status::Done, format!("answered in {took_ms} ms")),
        Err(why) => {
            let (failures, message) = (part.failures + 1, limit::clip(&why));
            let part = Operation { failures, message: message.clone(), ..Operation::clone(&part) };
            draft.put(part);
            if failures >= kind::PROBE_RETRIES {
                lifecycle::end(draft, id, Status::Stuck, message);
            }
        }
    }
    Ok(())
}

/// A host is heard of, or not any more: what is asked of it waits for it.
pub(crate) fn heard(draft: &mut Draft, host: HostId, ready: bool) {
    let parts = draft.state().unfinished_of(host).filter(|part| part.kind == Kind::Probe);
    for part in parts.map(|part| Operation::clone(part)).collect::<Vec<_>>() {
        let status = if ready { part.status } else { Status::Queued };
        draft.put(Operation { ready, status, ..part });
    }
}

/// Ends what was to be done with a host that is forgotten.
pub(crate) fn host_gone(draft: &mut Draft, host: HostId) {
    let left: Vec<_> = draft.state().unfinished_of(host).map(|row| row.id).collect();
    for id in left {
        lifecycle::end(draft, id, Status::RolledBack, "the host was removed".to_owned());
    }
}
