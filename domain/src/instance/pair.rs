//! The two bodies of a migration: what reports of them mean together, and the one entry that makes
//! the target the VM's body.
//!
//! The law: a target goes on only after the switch is in the log, the switch comes only after
//! evidence that the source has ended, and a source that stands still goes on only after the target
//! is given up for good. Whatever tears the hosts apart, one of them is a body and the log says
//! which.

use super::{Body, Ended, Instance, Life, Phase, Report, Role, way_back};
use crate::{
    Draft,
    host::{Evidence, Status as HostStatus},
    id::{HostId, VmId},
    limit,
    operation::{self, Kind, Migration, Operation, Status, Step, Terms},
    setting::Key,
    vm::{self, Desired, Vm},
};

/// Why a guest is not sent whose VM has changed since that was asked for.
const CHANGED: &str = "the guest has ended, or is about to";

/// Takes a report of a body that is, or was, one of two. False when the ordinary rules are to take
/// it.
pub(super) fn note(draft: &mut Draft, old: &Instance, report: &Report) -> bool {
    match old.role {
        Role::Incoming => note_target(draft, old, report),
        Role::Retiring => note_retiring(draft, old, report),
        Role::Active => {
            let migration = draft.state().migration_of(old.vm);
            let Some((_, migration)) = migration else { return false };
            match migration.step {
                Step::Copy if incoming(draft, old.vm).is_some() => note_source(draft, old, report),
                Step::Reserve | Step::Prepare | Step::Copy | Step::Retire => return false,
                Step::Validate => {
                    match report.life.filter(|_| old.phase == Phase::Running) {
                        Some(Life::Seen) => {
                            way_back::tell(draft, old.vm, "");
                            advance(draft, old.vm, Step::Retire);
                        }
                        Some(Life::Missed) => way_back::turn_back(draft, old.vm),
                        None => {}
                    }
                    return false;
                }
            }
        }
    }
    true
}

fn note_source(draft: &mut Draft, old: &Instance, report: &Report) {
    let mut new = Instance::clone(old);
    match (old.phase, report.body) {
        (_, Body::Running) => new.phase = Phase::Running,
        // It came here standing still, and has not been resumed since.
        (_, Body::Paused) | (Phase::Paused, Body::Arrived) => new.phase = Phase::Paused,
        (_, Body::Stopped(Ended::Migrated)) => new.phase = Phase::Yielded,
        (Phase::Ready | Phase::Stopped, Body::Ready | Body::Stopped(_)) => {}
        (_, Body::Stopped(ended)) => return crashed(draft, old, ended),
        (_, Body::Absent | Body::Ready | Body::Incoming | Body::Arrived) => {
            return crashed(draft, old, Ended::Crashed);
        }
    }
    new.starts = new.starts.max(report.starts);
    new.failure = failure(report);
    let vm = new.vm;
    let stays = new.phase != Phase::Yielded;
    let yields = !stays && old.phase != Phase::Yielded;
    if new != *old {
        draft.put(new);
    }
    if let Some(progress) = report.progress {
        change(draft, vm, |migration| migration.progress = Some(progress));
    }
    if yields && report.agent {
        change(draft, vm, |migration| migration.agent = true);
    }
    let Some(target) = incoming(draft, vm) else { return };
    let unwinding = draft
        .state()
        .migration_of(vm)
        .is_some_and(|(operation, _)| operation.status == Status::Unwinding);
    if unwinding && stays && report.still {
        return retire(draft, target);
    }
    // What was seen of the target until now was seen before the source ended: it must be looked at
    // again, and only that look counts.
    if yields && target.phase != Phase::Arrived {
        draft.put(Instance { fence: draft.revision(), ..target });
    }
}

fn note_target(draft: &mut Draft, old: &Instance, report: &Report) {
    let source_ended = has_yielded(draft, old.vm);
    let mut new = Instance::clone(old);
    new.phase = match report.body {
        Body::Arrived => Phase::Arrived,
        // A guest that is still coming while its source has ended may yet turn out to be whole.
        Body::Incoming => old.phase,
        // Nobody has asked for it: two may run.
        Body::Running if !source_ended => Phase::Failed,
        Body::Running => Phase::Arrived,
        // The guest has not come, and nobody is left to send it.
        _ if source_ended => Phase::Failed,
        Body::Absent if report.landing.is_none() => Phase::Reserved,
        Body::Absent | Body::Ready | Body::Paused | Body::Stopped(_) => Phase::Ready,
    };
    new.landing = report.landing.clone().or(new.landing);
    new.starts = new.starts.max(report.starts);
    new.failure = failure(report);
    if report.failure.as_ref().is_some_and(|failure| failure.permanent) {
        new.phase = Phase::Failed;
    }
    if new != *old {
        draft.put(new);
    }
}

fn note_retiring(draft: &mut Draft, old: &Instance, report: &Report) {
    if report.body == Body::Absent {
        draft.delete::<Instance>(old.id);
    } else if failure(report) != old.failure {
        draft.put(Instance { failure: failure(report), ..Instance::clone(old) });
    }
}

fn failure(report: &Report) -> Option<String> {
    report.failure.as_ref().map(|failure| limit::clip(&failure.message))
}

/// Moves a migration on as far as its bodies let it.
pub(crate) fn settle(draft: &mut Draft, id: VmId) {
    let state = draft.state();
    let Some(vm) = state.vms.get(&id).cloned() else { return };
    let Some((operation, migration)) = state.migration_of(id) else { return };
    let (operation, step) = (Operation::clone(operation), migration.step);
    let home = migration.way_back;
    let Some(active) = state.instance_of(id).cloned() else { return };
    let spare = state.spare_of(id).cloned();
    let unwinding = operation.status == Status::Unwinding;
    match step {
        // Somebody has moved it home by hand since it could not be taken back.
        Step::Reserve if home == Some(active.host) => {
            operation::end(draft, operation.id, Status::Done, String::new());
        }
        Step::Reserve => {
            if !vm::can_leave(active.phase, vm.desired) {
                let why = CHANGED.to_owned();
                operation::end(draft, operation.id, Status::RolledBack, why);
            }
        }
        Step::Prepare | Step::Copy if unwinding => settle_unwinding(draft, &operation, &active),
        Step::Prepare => match spare.as_deref() {
            _ if !vm::can_leave(active.phase, vm.desired) => unwind(draft, id, CHANGED),
            Some(Instance { phase: Phase::Ready, landing: Some(_), .. }) => {
                let fence = draft.revision();
                draft.put(Instance { fence, failure: None, ..Instance::clone(&active) });
                advance(draft, id, Step::Copy);
            }
            Some(Instance { failure: Some(why), .. }) => unwind(draft, id, why),
            Some(target) if is_lost(draft, target.host) => unwind(draft, id, "the target was lost"),
            Some(_) => {}
            None => unwind(draft, id, "the target is gone"),
        },
        Step::Copy => match (&active.failure, active.phase) {
            (_, Phase::Yielded) => settle_yielded(draft, &active),
            (Some(why), _) => unwind(draft, id, why),
            (None, _) => {
                if let Some(target) = spare.filter(|target| target.phase == Phase::Failed) {
                    let why = target.failure.clone();
                    let why = why.unwrap_or_else(|| "somebody started the target".to_owned());
                    unwind(draft, id, &why);
                }
            }
        },
        Step::Validate if active.phase == Phase::Failed => {
            let why = active.failure.clone().unwrap_or_default();
            operation::end(draft, operation.id, Status::Stuck, why);
        }
        // A guest that has ended since, and is to rest, has nothing to show.
        Step::Validate if vm.desired != Desired::Running => {
            advance(draft, id, Step::Retire);
            settle(draft, id);
        }
        Step::Validate => {}
        // What brought the disks is still to be ended.
        Step::Retire if active.phase == Phase::Arrived => {}
        Step::Retire => {
            if let Some(message) = cleared(draft, spare.as_deref(), &operation.message) {
                match home.filter(|home| *home != active.host) {
                    Some(home) => way_back::go_back(draft, &operation, home),
                    None => operation::end(draft, operation.id, Status::Done, message),
                }
            }
        }
    }
}

/// What to say when nothing is left to be removed, or what is left is on a host that is lost: it is
/// removed when that is back, and nobody waits for it.
fn cleared(draft: &Draft, spare: Option<&Instance>, message: &str) -> Option<String> {
    let Some(spare) = spare else { return Some(message.to_owned()) };
    if !is_lost(draft, spare.host) {
        return None;
    }
    let host = draft.state().hosts.get(&spare.host).map(|host| host.name.to_string());
    let host = host.unwrap_or_default();
    let left = format!("what is left on host {host} is removed when it is back");
    Some(if message.is_empty() { left } else { format!("{message}; {left}") })
}

/// The guest has left the source: it is at the target, or nowhere.
fn settle_yielded(draft: &mut Draft, source: &Instance) {
    let Some(target) = incoming(draft, source.vm) else {
        return crashed(draft, source, Ended::Crashed);
    };
    match target.phase {
        Phase::Arrived if !is_lost(draft, target.host) => switch(draft, source, &target),
        Phase::Failed => crashed(draft, source, Ended::Crashed),
        // It has not been looked at since, or its host has not been heard of.
        Phase::Arrived
        | Phase::Reserved
        | Phase::Ready
        | Phase::Running
        | Phase::Paused
        | Phase::Stopped
        | Phase::Yielded => {}
    }
}

fn settle_unwinding(draft: &mut Draft, operation: &Operation, active: &Instance) {
    match (incoming(draft, active.vm), active.phase) {
        // It was too late to turn back: nothing is lost by going on.
        (Some(_), Phase::Yielded) => settle_yielded(draft, active),
        // Until the source is seen to stand by itself, with nothing on its way.
        (Some(_), _) => {}
        (None, _) => {
            let spare = draft.state().spare_of(active.vm).cloned();
            if let Some(message) = cleared(draft, spare.as_deref(), &operation.message) {
                operation::end(draft, operation.id, Status::RolledBack, message);
            }
        }
    }
}

/// The point of no return: from this entry on the target is the VM's body.
fn switch(draft: &mut Draft, source: &Instance, target: &Instance) {
    let Some(vm) = draft.state().vms.get(&source.vm).cloned() else { return };
    let fence = draft.revision();
    let phase = match vm.desired {
        Desired::Running | Desired::Paused => Phase::Paused,
        Desired::Stopped | Desired::Killed => Phase::Arrived,
    };
    draft.put(Instance { role: Role::Retiring, fence, failure: None, ..Instance::clone(source) });
    draft.put(Instance {
        role: Role::Active,
        fence,
        phase,
        landing: None,
        failure: None,
        spec: source.spec.clone(),
        generation: source.generation,
        reboots: source.reboots,
        ..Instance::clone(target)
    });
    if let Some((operation, migration)) = draft.state().migration_of(source.vm) {
        let is_back = migration.way_back == Some(target.host);
        let (before, deadline_ms) = (migration.home, operation.deadline_ms);
        let parent = operation.parent.and_then(|parent| draft.state().operations.get(&parent));
        let drained = parent.is_some_and(|parent| parent.kind == Kind::Drain);
        // Who goes from one drained host to the next still comes from the first.
        let home = drained.then(|| vm.home.unwrap_or(source.host));
        let home = if is_back { before } else { home.filter(|home| *home != target.host) };
        let operation = operation.clone();
        draft.put(Vm { home, ..Vm::clone(&vm) });
        // An unwinding that came too late is none.
        let (status, message) = (Status::Running, String::new());
        // What the copying took of its time is not held against the guest.
        let state = draft.state();
        let deadline_ms = deadline_ms.max(state.now_ms + state.setting(Key::OperationDeadlineMs));
        draft.put(Operation { status, message, deadline_ms, ..Operation::clone(&operation) });
        if !is_back {
            change(draft, source.vm, |migration| migration.home = vm.home);
        }
    }
    let next = if vm.desired == Desired::Running { Step::Validate } else { Step::Retire };
    advance(draft, source.vm, next);
}

/// The guest ended while it was copied: at the source it is what any guest is that ended, and the
/// source's disks are the truth. Whatever has come to the target is a copy of a guest that may have
/// gone on since, and is given up.
fn crashed(draft: &mut Draft, source: &Instance, ended: Ended) {
    if let Some(target) = incoming(draft, source.vm) {
        retire(draft, target);
    }
    draft.put(Instance {
        phase: at_rest(source.phase),
        // What is made again counts its starts anew.
        starts: if source.phase == Phase::Yielded { 0 } else { source.starts },
        ended: Some(ended),
        fence: draft.revision(),
        ..source.clone()
    });
    if let Some((operation, _)) = draft.state().migration_of(source.vm) {
        let message = "the guest ended while it was copied".to_owned();
        let operation =
            Operation { status: Status::Unwinding, message, ..Operation::clone(operation) };
        draft.put(operation);
    }
    vm::body_ended(draft, source.vm, false, Some(ended));
}

/// The phase of a body whose guest has ended. Of one that was sent away nothing but disks is left.
fn at_rest(phase: Phase) -> Phase {
    if phase == Phase::Yielded { Phase::Reserved } else { Phase::Stopped }
}

/// Begins to undo a migration, unless that is under way already or too late.
pub(crate) fn unwind(draft: &mut Draft, id: VmId, why: &str) {
    let state = draft.state();
    let Some((operation, migration)) = state.migration_of(id) else { return };
    let Some(active) = state.instance_of(id) else { return };
    if operation.status != Status::Running
        || migration.step.is_past_switch()
        || active.phase == Phase::Yielded
    {
        return;
    }
    let (copies, active) = (migration.step == Step::Copy, Instance::clone(active));
    let message = limit::clip(why);
    draft.put(Operation { status: Status::Unwinding, message, ..Operation::clone(operation) });
    // A call to send that is still on its way is refused from now on.
    draft.put(Instance { fence: draft.revision(), failure: None, ..active });
    if !copies && let Some(target) = incoming(draft, id) {
        retire(draft, target);
    }
    settle(draft, id);
}

/// Gives a migration's target, and its way back, up because a stronger operation takes the VM over.
pub(crate) fn abandon(draft: &mut Draft, id: VmId) {
    if draft.state().migration_of(id).is_some_and(|(_, migration)| migration.way_back.is_some()) {
        change(draft, id, |migration| migration.way_back = None);
    }
    let Some(target) = incoming(draft, id) else { return };
    retire(draft, target);
    let Some(source) = draft.state().instance_of(id).cloned() else { return };
    let left = source.phase == Phase::Yielded;
    let phase = if left { at_rest(source.phase) } else { source.phase };
    draft.put(Instance { phase, fence: draft.revision(), ..Instance::clone(&source) });
}

/// Guests of a host are known to have ended, and with them what they were to migrations. A source may
/// have gone on after its copy was whole, for as long as its host lived.
pub(crate) fn host_ended(draft: &mut Draft, host: HostId, evidence: Evidence) {
    let bodies = draft.state().instances_on(host).filter(|body| evidence.covers(body));
    for body in bodies.map(|body| Instance::clone(body)).collect::<Vec<_>>() {
        match body.role {
            Role::Active => source_ended(draft, &body),
            Role::Incoming if has_yielded(draft, body.vm) => {
                draft.put(Instance { phase: Phase::Failed, ..body.clone() });
            }
            // The source is asked first: a call to send that comes late may find the host back.
            Role::Incoming => unwind(draft, body.vm, "the target's host was lost"),
            Role::Retiring => retire(draft, body.clone()),
        }
        operation::settle(draft, body.vm);
    }
}

/// The host of a migration's active body is known to have ended.
fn source_ended(draft: &mut Draft, body: &Instance) {
    let Some((operation, migration)) = draft.state().migration_of(body.vm) else { return };
    let (id, step) = (operation.id, migration.step);
    match step {
        Step::Reserve => {
            let why = "its host was lost".to_owned();
            operation::end(draft, id, Status::RolledBack, why);
        }
        Step::Prepare => unwind(draft, body.vm, "the source's host was lost"),
        // It has left in time.
        Step::Copy if body.phase == Phase::Yielded => {}
        Step::Copy => crashed(draft, body, Ended::Crashed),
        Step::Validate => {
            let why = "the guest's new host was lost before the guest was seen to work".to_owned();
            operation::end(draft, id, Status::Stuck, why);
        }
        Step::Retire => {
            let why = "the guest's new host was lost".to_owned();
            operation::end(draft, id, Status::Done, why);
        }
    }
}

fn has_yielded(draft: &Draft, vm: VmId) -> bool {
    draft.state().instance_of(vm).is_some_and(|source| source.phase == Phase::Yielded)
}

fn incoming(draft: &Draft, vm: VmId) -> Option<Instance> {
    let spare = draft.state().spare_of(vm)?;
    (spare.role == Role::Incoming).then(|| Instance::clone(spare))
}

/// Has a body released; of one on a machine that is gone nothing is left to be.
pub(crate) fn retire(draft: &mut Draft, target: Instance) {
    let ended = draft.state().hosts.get(&target.host).and_then(|host| host.ended);
    if ended.is_some_and(|evidence| evidence > Evidence::Guard) {
        return draft.delete::<Instance>(target.id);
    }
    draft.put(Instance {
        role: Role::Retiring,
        fence: draft.revision(),
        landing: None,
        failure: None,
        ..target
    });
}

fn is_lost(draft: &Draft, host: HostId) -> bool {
    draft.state().hosts.get(&host).is_none_or(|host| host.status != HostStatus::Ready)
}

pub(super) fn advance(draft: &mut Draft, vm: VmId, step: Step) {
    let wall_ms = draft.wall_ms();
    let Some((operation, migration)) = draft.state().migration_of(vm) else { return };
    debug_assert!(step > migration.step, "{:?} -> {step:?}", migration.step);
    let migration = Some(Box::new(Migration { step, ..migration.clone() }));
    let operation = Operation { migration, ..Operation::clone(operation) };
    draft.put(operation.at(step.into(), wall_ms));
}

pub(super) fn change(draft: &mut Draft, vm: VmId, how: impl FnOnce(&mut Migration)) {
    let Some((operation, migration)) = draft.state().migration_of(vm) else { return };
    let (mut migration, operation) = (migration.clone(), Operation::clone(operation));
    how(&mut migration);
    draft.put(Operation { migration: Some(Box::new(migration)), ..operation });
}

/// When a migration that begins now must have ended, lease time, milliseconds.
pub(super) fn deadline_ms(draft: &Draft, vm: &Vm, terms: &Terms) -> u64 {
    let state = draft.state();
    let booked = crate::host::Capacity::of(&vm.spec);
    let gib = (booked.memory_mib + booked.disk_mib).div_ceil(1_024);
    let per_gib_ms = terms.deadline_ms_per_gib;
    let per_gib_ms = per_gib_ms.unwrap_or_else(|| state.setting(Key::MigrationDeadlineMsPerGib));
    let least_ms = terms.deadline_ms.unwrap_or_else(|| state.setting(Key::MigrationDeadlineMs));
    state.now_ms + least_ms + gib * per_gib_ms
}
