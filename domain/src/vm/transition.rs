//! The rules of VMs.

use std::sync::Arc;

use super::{
    Desired, Failover, Restarts, RunPolicy, SpecPatch, Takes, Vm, VmCommand, VmSpec,
    awaits_failover, leave, mutability, pool,
};
use crate::{
    Draft, Revision, admission,
    host::{self, Capacity},
    id::{OperationId, VmId},
    instance::{Ended, Instance, Phase as Body},
    limit,
    name::Name,
    operation::{self, Kind, Operation, Status},
    rejected::{Reason, Rejected},
};

/// Decides about VMs.
pub(crate) fn decide(draft: &mut Draft, command: VmCommand) -> Result<(), Rejected> {
    match command {
        VmCommand::Create { vm, project, name, spec, start, operation } => {
            create(draft, vm, project, name, *spec, start, operation)
        }
        VmCommand::Update { vm, patch, etag } => update(draft, vm, *patch, etag),
        VmCommand::Start { vm, operation } => {
            power(draft, vm, operation, Kind::Start, Desired::Running)
        }
        VmCommand::Stop { vm, force: false, operation } => {
            power(draft, vm, operation, Kind::Stop, Desired::Stopped)
        }
        VmCommand::Stop { vm, force: true, operation } => {
            power(draft, vm, operation, Kind::Kill, Desired::Killed)
        }
        VmCommand::Pause { vm, operation } => {
            power(draft, vm, operation, Kind::Pause, Desired::Paused)
        }
        VmCommand::Resume { vm, operation } => {
            power(draft, vm, operation, Kind::Resume, Desired::Running)
        }
        VmCommand::Reboot { vm, operation } => reboot(draft, vm, operation),
        VmCommand::Delete { vm, etag, operation } => delete(draft, vm, etag, operation),
        VmCommand::Migrate { vm, to, wish, priority, operation } => {
            leave::migrate(draft, vm, to, wish, priority, operation)
        }
        VmCommand::Unplaceable(reasons) => {
            if reasons.len() > limit::BATCH_MAX {
                return Err(Rejected::new(Reason::TooLarge, "too many rows in one command"));
            }
            for (vm, reason) in reasons {
                set_placement_failure(draft, vm, reason);
            }
            Ok(())
        }
    }
}

pub(crate) fn create(
    draft: &mut Draft,
    id: VmId,
    project: Name,
    name: Name,
    spec: VmSpec,
    start: bool,
    operation: OperationId,
) -> Result<(), Rejected> {
    let state = draft.state();
    if !state.projects.contains_key(&project) {
        return Err(Rejected::not_found("project", &project));
    }
    if state.vm_named(&project, &name).is_some() {
        let message = format!("VM {name} exists already in project {project}; choose another name");
        return Err(Rejected::new(Reason::NameTaken, message));
    }
    draft.room_for("VMs", state.vms.len(), limit::VMS_MAX)?;
    let image = admission::admit(state, &spec, None)?;
    let (now, wall) = (state.now_ms, draft.wall_ms());
    let desired = if start { Desired::Running } else { Desired::Stopped };
    operation::open(draft, operation, Kind::Create, &project, &name, id)?;
    draft.put(Vm {
        id,
        project,
        name,
        spec: Arc::new(spec),
        generation: 1,
        image,
        desired,
        desired_since_ms: now,
        reboots: 0,
        deleting: false,
        restarts: Restarts::default(),
        operation: Some(operation),
        migration_failed_ms: 0,
        stopping_since_ms: 0,
        home: None,
        stop_recalled_until_ms: 0,
        pool: None,
        disks_made: false,
        placement_failure: None,
        created_wall_ms: wall,
        revision: Revision::ZERO,
    });
    draft.reply_operation(operation);
    draft.reply_object("vm", id);
    Ok(())
}

/// The VM, unless it is on its way out or was changed since `etag`.
pub(super) fn existing(draft: &Draft, id: VmId, etag: Option<Revision>) -> Result<Vm, Rejected> {
    let vm = draft.state().vms.get(&id).ok_or_else(|| Rejected::not_found("VM", id))?;
    if let Some(etag) = etag
        && etag != vm.revision
    {
        let message = format!("VM {} changed since it was read; read it again", vm.name);
        return Err(Rejected::new(Reason::EtagMismatch, message));
    }
    if vm.deleting {
        return Err(Rejected::new(Reason::VmDeleting, format!("VM {} is being deleted", vm.name)));
    }
    Ok(Vm::clone(vm))
}

/// Refuses while an operation is under way.
pub(super) fn idle(vm: &Vm) -> Result<(), Rejected> {
    let Some(operation) = vm.operation else { return Ok(()) };
    let message =
        format!("VM {} is busy with operation {operation}; wait for it or cancel it", vm.name);
    Err(Rejected::new(Reason::VmBusy, message))
}

fn update(
    draft: &mut Draft,
    id: VmId,
    patch: SpecPatch,
    etag: Option<Revision>,
) -> Result<(), Rejected> {
    let mut vm = existing(draft, id, etag)?;
    let spec = patch.apply(&vm.spec);
    let takes = mutability::check(&vm.spec, &spec)?;
    admission::admit(draft.state(), &spec, Some(&vm.spec))?;
    draft.reply_object("vm", id);
    if spec == *vm.spec {
        return Ok(());
    }
    if spec.failover == Failover::Stay
        && let Some(body) = draft.state().instance_of(id).filter(|body| body.guarded)
    {
        // From its next start on, which the host need not have told yet.
        let body = Instance { guarded: false, ..Instance::clone(body) };
        draft.put(body);
    }
    if takes == Takes::NextStart {
        if draft.state().migration_of(id).is_some() {
            idle(&vm)?;
        }
        vm.generation += 1;
        book(draft, id, &spec)?;
    }
    vm.spec = Arc::new(spec);
    draft.put(vm);
    Ok(())
}

/// Books what the VM will start with next on its body's host, so that the start cannot overbook it.
fn book(draft: &mut Draft, id: VmId, spec: &VmSpec) -> Result<(), Rejected> {
    let state = draft.state();
    let Some(body) = state.instance_of(id).cloned() else { return Ok(()) };
    let Some(host) = state.hosts.get(&body.host) else { return Ok(()) };
    let booked = Capacity::of(spec).at_least(body.booked);
    let others = state.used_on(host.id).minus(body.booked);
    if let Some(short) = booked.shortage(host.allocatable(), others) {
        let message = format!("host {} has not enough {short} left for this", host.name);
        return Err(Rejected::new(Reason::HostUnfit, message));
    }
    draft.put(Instance { booked, ..Instance::clone(&body) });
    Ok(())
}

fn power(
    draft: &mut Draft,
    id: VmId,
    operation: OperationId,
    kind: Kind,
    desired: Desired,
) -> Result<(), Rejected> {
    let vm = existing(draft, id, None)?;
    let body = draft.state().instance_of(id).map(|body| body.phase);
    let runs = matches!(body, Some(Body::Running | Body::Paused));
    if matches!(kind, Kind::Pause | Kind::Resume) && !runs {
        let message = format!("VM {} does not run; start it first", vm.name);
        return Err(Rejected::new(Reason::VmState, message));
    }
    if kind == Kind::Kill {
        operation::overtake(draft, &vm, operation);
    } else {
        idle(&vm)?;
    }
    if kind == Kind::Start {
        operation::retry_failed(draft, id);
    }
    wish(draft, id, operation, kind, |vm| vm.desired = desired)
}

fn reboot(draft: &mut Draft, id: VmId, operation: OperationId) -> Result<(), Rejected> {
    let vm = existing(draft, id, None)?;
    idle(&vm)?;
    if draft.state().instance_of(id).is_none_or(|body| body.phase != Body::Running) {
        let message = format!("VM {} does not run; start it instead", vm.name);
        return Err(Rejected::new(Reason::VmState, message));
    }
    wish(draft, id, operation, Kind::Reboot, |vm| vm.reboots += 1)
}

pub(crate) fn delete(
    draft: &mut Draft,
    id: VmId,
    etag: Option<Revision>,
    operation: OperationId,
) -> Result<(), Rejected> {
    let vm = existing(draft, id, etag)?;
    if vm.spec.deletion_protection {
        let message =
            format!("VM {} is protected; update it with deletion_protection off first", vm.name);
        return Err(Rejected::new(Reason::DeletionProtected, message));
    }
    operation::overtake(draft, &vm, operation);
    wish(draft, id, operation, Kind::Delete, |vm| vm.deleting = true)?;
    host::forget_bodies(draft, id);
    forget_if_gone(draft, id);
    Ok(())
}

/// Changes what is wanted of a VM, as a new operation, and sees whether the wish is fulfilled.
fn wish(
    draft: &mut Draft,
    id: VmId,
    operation: OperationId,
    kind: Kind,
    change: impl FnOnce(&mut Vm),
) -> Result<(), Rejected> {
    let Some(mut vm) = draft.state().vms.get(&id).map(|vm| Vm::clone(vm)) else {
        return Err(Rejected::not_found("VM", id));
    };
    operation::open(draft, operation, kind, &vm.project, &vm.name, id)?;
    change(&mut vm);
    vm.desired_since_ms = draft.state().now_ms;
    vm.restarts = vm.restarts.forgiven();
    vm.operation = Some(operation);
    draft.put(vm);
    draft.reply_operation(operation);
    draft.reply_object("vm", id);
    operation::begin(draft, id);
    operation::settle(draft, id);
    Ok(())
}

/// What follows for the VM when its guest started or ended.
pub(crate) fn body_ended(draft: &mut Draft, id: VmId, started: bool, ended: Option<Ended>) {
    let Some(old) = draft.state().vms.get(&id).cloned() else { return };
    let now = draft.state().now_ms;
    let mut vm = Vm::clone(&old);
    if started {
        vm.restarts.started_ms = now;
        vm.restarts.not_before_ms = 0;
    }
    let wanted = match vm.desired {
        Desired::Running | Desired::Paused => true,
        Desired::Stopped | Desired::Killed => false,
    };
    if let Some(ended) = ended
        && wanted
    {
        // It was asked to, by a stop that was cancelled since.
        let recalled = ended == Ended::Shutdown && now < vm.stop_recalled_until_ms;
        let again = match (vm.spec.run_policy, ended) {
            _ if recalled => true,
            (RunPolicy::Always, _)
            | (RunPolicy::OnFailure, Ended::Crashed | Ended::Killed | Ended::Migrated) => true,
            (RunPolicy::OnFailure, Ended::Shutdown) | (RunPolicy::Manual, _) => false,
        };
        if again {
            restart_later(&mut vm.restarts, now);
        } else {
            vm.desired = Desired::Stopped;
            vm.desired_since_ms = now;
        }
        if vm != *old {
            draft.put(vm);
        }
        if !again {
            operation::withdraw(draft, id, ended);
        }
        return;
    }
    if vm != *old {
        draft.put(vm);
    }
}

/// Doubles the delay from crash to crash, and forgives a guest that ran for long.
fn restart_later(restarts: &mut Restarts, now_ms: u64) {
    if now_ms.saturating_sub(restarts.started_ms) >= limit::RESTART_FORGIVEN_MS {
        restarts.count = 0;
    }
    let delay_ms = (1000_u64 << restarts.count.min(16)).min(limit::RESTART_DELAY_MS_MAX);
    restarts.count = restarts.count.saturating_add(1);
    restarts.not_before_ms = now_ms + delay_ms;
}

/// Forgets a VM that is on its way out and has no body left.
pub(crate) fn forget_if_gone(draft: &mut Draft, id: VmId) {
    let state = draft.state();
    let gone = state.instance_of(id).is_none() && state.spare_of(id).is_none();
    let Some(vm) = draft.state().vms.get(&id).filter(|vm| vm.deleting && gone).cloned() else {
        return;
    };
    if vm.pool.is_some() {
        // It is forgotten when a host has removed its disks.
        pool::clear(draft, id, None);
        return;
    }
    draft.delete::<Vm>(id);
    operation::vm_gone(draft, id, vm.operation);
}

/// Notes why no host takes the VM, or the guest that is to leave.
fn set_placement_failure(draft: &mut Draft, id: VmId, reason: String) {
    if let Some((operation, _)) = draft.state().migration_of(id) {
        let message = limit::clip(&reason);
        if operation.status == Status::Queued && operation.message != message {
            let operation = Operation { message, ..Operation::clone(operation) };
            draft.put(operation);
        }
        return;
    }
    let state = draft.state();
    let waits = |vm: &Vm| state.unplaced.contains(&id) || awaits_failover(state, vm);
    let Some(vm) = state.vms.get(&id).filter(|vm| waits(vm)) else { return };
    let reason = Some(limit::clip(&reason));
    if vm.placement_failure != reason {
        let vm = Vm { placement_failure: reason, ..Vm::clone(vm) };
        draft.put(vm);
    }
}
