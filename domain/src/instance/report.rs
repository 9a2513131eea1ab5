//! What hosts saw of their bodies, and what follows from it.

use serde::{Deserialize, Serialize};

use super::{Instance, Landing, Phase, Place, pair, placement};
use crate::{
    Draft, Fence,
    host::Capacity,
    id::{InstanceId, NodeId, OperationId, VmId},
    limit,
    operation::{self, Progress, Step},
    principal::Principal,
    rejected::{Reason, Rejected},
    vm,
};

/// What may be asked of, and told about, bodies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum InstanceCommand {
    /// Put VMs on hosts, as a plan proposes. Rows that no longer fit are left out, the rest stand.
    Place(Vec<Place>),
    /// Give migrations that wait their targets, as a plan proposes. The same holds.
    Reserve(Vec<Place>),
    /// Have VMs of lost hosts start elsewhere, each by the operation named. The same holds.
    Relocate(Vec<(VmId, OperationId)>),
    /// Have guests leave hosts that are being drained, each by the operation named. The same holds.
    Evacuate(Vec<(VmId, OperationId)>),
    /// What a node's drivers saw. Rows of a stale owner are left out, the rest stand.
    Report(Vec<Report>),
}

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// It shut itself down, asked or unasked.
    Shutdown,
    /// Its power was cut.
    Killed,
    /// It crashed, or its hypervisor process died.
    Crashed,
    /// It was sent to another host, and has not executed here since the copy of it was whole. A
    /// process that is gone is no evidence of that: a guest may have gone on after the copy.
    Migrated,
}

/// What a driver saw of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Certainly nothing: neither a definition nor a process.
    Absent,
    /// Defined; no process.
    Ready,
    /// The guest executes.
    Running,
    /// The guest stands still in memory.
    Paused,
    /// Defined; the process ended this way.
    Stopped(Ended),
    /// A guest is coming here; not all of it has come.
    Incoming,
    /// A guest has come here and stands still.
    Arrived,
}

/// What was seen of a guest that is to show that it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Life {
    /// It works.
    Seen,
    /// It has shown nothing for as long as it was given.
    Missed,
}

/// A driver's failure that only a change can mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Whether trying again is useless.
    pub permanent: bool,
    /// What the driver said.
    pub message: String,
}

/// What a driver saw of one body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The body.
    pub instance: InstanceId,
    /// The fence under which it was seen.
    pub fence: Fence,
    /// What was seen.
    pub body: Body,
    /// The generation of the spec it was last started with, when this node started it.
    #[serde(default)]
    pub generation: Option<u32>,
    /// Reboots it has had under this fence.
    #[serde(default)]
    pub reboots: u32,
    /// Starts it has had under this fence.
    #[serde(default)]
    pub starts: u32,
    /// Where a guest can be sent, when the body was made to receive one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landing: Option<Landing>,
    /// How far its copying is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Whether it was seen after an abort under this fence: nothing is being sent, and no call that
    /// would send is on its way any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub still: bool,
    /// Whether the guest's agent answered before it left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub agent: bool,
    /// Whether the guest was seen to work, after that was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<Life>,
    /// Whether the body was released, with what its VM had in a pool if that is on its way out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cleared: bool,
    /// What went wrong with the last action, if it did.
    #[serde(default)]
    pub failure: Option<Failure>,
}

impl Report {
    /// That this was seen, and nothing else is known.
    #[must_use]
    pub fn seen(instance: InstanceId, fence: Fence, body: Body) -> Report {
        Report {
            instance,
            fence,
            body,
            generation: None,
            reboots: 0,
            starts: 0,
            landing: None,
            progress: None,
            still: false,
            agent: false,
            life: None,
            cleared: false,
            failure: None,
        }
    }
}

/// Decides about bodies.
pub(crate) fn decide(
    draft: &mut Draft,
    principal: &Principal,
    command: InstanceCommand,
) -> Result<(), Rejected> {
    let Principal::Node(node) = principal else {
        return Err(Rejected::new(Reason::PermissionDenied, "only nodes place and report"));
    };
    let rows = match &command {
        InstanceCommand::Place(rows) | InstanceCommand::Reserve(rows) => rows.len(),
        InstanceCommand::Evacuate(rows) | InstanceCommand::Relocate(rows) => rows.len(),
        InstanceCommand::Report(rows) => rows.len(),
    };
    if rows > limit::BATCH_MAX {
        let message = format!("{rows} rows; at most {} fit in one command", limit::BATCH_MAX);
        return Err(Rejected::new(Reason::TooLarge, message));
    }
    match command {
        InstanceCommand::Place(rows) => {
            rows.into_iter().for_each(|row| placement::place(draft, row))
        }
        InstanceCommand::Reserve(rows) => {
            rows.into_iter().for_each(|row| placement::reserve(draft, row))
        }
        InstanceCommand::Evacuate(rows) => {
            rows.into_iter().for_each(|(vm, operation)| vm::evacuate(draft, vm, operation));
        }
        InstanceCommand::Relocate(rows) => {
            rows.into_iter().for_each(|(vm, operation)| vm::relocate(draft, vm, operation));
        }
        InstanceCommand::Report(rows) => rows.into_iter().for_each(|row| note(draft, *node, row)),
    }
    Ok(())
}

/// Notes one report, unless it is a stale owner's.
fn note(draft: &mut Draft, node: NodeId, report: Report) {
    let Some(old) = draft.state().instances.get(&report.instance).cloned() else { return };
    // What was seen on a host before its guests ended is of no use after it.
    let drives = draft
        .state()
        .hosts
        .get(&old.host)
        .is_some_and(|host| host.node == node && host.ended.is_none());
    if old.fence != report.fence || !drives {
        return;
    }
    let Some(vm) = draft.state().vms.get(&old.vm).cloned() else { return };
    if report.body != Body::Absent {
        vm::note_made(draft, vm.id);
    }
    if !vm.deleting && pair::note(draft, &old, &report) {
        return operation::settle(draft, vm.id);
    }

    if report.body == Body::Absent && vm.deleting {
        let failed = report.failure.as_ref();
        match (vm.pool, failed) {
            (Some(_), _) if report.cleared => vm::note_cleared(draft, vm.id),
            // Its host has released the body and cannot remove the disks: another one may.
            (Some(_), Some(failure)) => {
                operation::failed(draft, vm.id, &failure.message);
                draft.delete::<Instance>(old.id);
                if draft.state().spare_of(vm.id).is_none() {
                    vm::clear_pool(draft, vm.id, Some(old.host));
                }
                return;
            }
            (Some(_), None) => return,
            (None, _) => {}
        }
        draft.delete::<Instance>(old.id);
        vm::forget_if_gone(draft, vm.id);
        return;
    }

    let mut new = Instance::clone(&old);
    new.phase = old.phase.next(report.body);
    new.reboots = new.reboots.max(report.reboots);
    new.starts = new.starts.max(report.starts);
    let ran_unseen = report.starts > old.starts;
    new.failure = report.failure.as_ref().map(|failure| limit::clip(&failure.message));
    if report.failure.as_ref().is_some_and(|failure| failure.permanent) {
        new.phase = Phase::Failed;
    }
    match report.body {
        Body::Stopped(ended) if old.phase != Phase::Stopped || ran_unseen => {
            new.ended = Some(ended);
        }
        Body::Running if report.generation == Some(vm.generation) => {
            new.spec = vm.spec.clone();
            new.generation = vm.generation;
            new.booked = Capacity::of(&vm.spec);
            new.guarded = vm.spec.failover.goes_elsewhere();
        }
        Body::Absent
        | Body::Ready
        | Body::Running
        | Body::Paused
        | Body::Stopped(_)
        | Body::Incoming
        | Body::Arrived => {}
    }
    let ended = match (old.phase, new.phase) {
        (Phase::Stopped, Phase::Stopped) if !ran_unseen => None,
        // It never executed here.
        (Phase::Arrived, _) => None,
        (_, Phase::Stopped) => new.ended,
        _ => None,
    };
    if new.phase == Phase::Running {
        new.inherited = false;
    }
    let started = old.phase != Phase::Running && new.phase == Phase::Running;
    if new != *old {
        draft.put(new);
        vm::body_ended(draft, vm.id, started, ended);
    }
    operation::settle(draft, vm.id);
    // What has got done in spite of it does not count.
    let goes_back = report.life == Some(Life::Missed) && !validates(draft, vm.id);
    match &report.failure {
        Some(failure) if !failure.permanent && !goes_back => {
            operation::failed(draft, vm.id, &failure.message)
        }
        Some(_) | None => {}
    }
}

/// Whether the VM's guest is still to show that it works.
fn validates(draft: &Draft, vm: VmId) -> bool {
    let migration = draft.state().migration_of(vm);
    migration.is_some_and(|(_, migration)| migration.step == Step::Validate)
}
