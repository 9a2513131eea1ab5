//! What a host is to do next with a body: one pure table. Actors only execute it.

use super::{Instance, Phase, Role};
use crate::{
    State,
    id::VmId,
    limit,
    operation::{Status, Step},
    setting::Key,
    vm::{Desired, Vm},
};

/// The next thing to do with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing to do.
    Rest,
    /// Nothing to do before this lease time, milliseconds.
    Wait(u64),
    /// Make the body: disks, definition.
    Prepare,
    /// Start the guest with the VM's newest spec.
    Start,
    /// Ask the guest to shut down; ask again after this lease time, milliseconds.
    Shutdown {
        /// When patience ends and [`Action::Kill`] follows.
        until_ms: u64,
    },
    /// Cut the guest's power.
    Kill,
    /// Restart the guest within its body.
    Reboot,
    /// Let the guest stand still.
    Pause,
    /// Let the guest go on.
    Resume,
    /// End the guest, remove the body and its disks.
    Release,
    /// Make ready to receive the guest.
    Receive,
    /// Look what is there, and tell.
    Look,
    /// Send the guest to the VM's incoming body; also goes on with what was begun.
    Send,
    /// End the sending, for good.
    Abort,
    /// See whether the guest works.
    Validate,
}

impl State {
    /// What `body`'s host is to do with it now.
    #[must_use]
    pub fn next_action(&self, body: &Instance) -> Action {
        // Without its lease a host may be one of two that believe they own the body.
        if !self.is_known(body) {
            return Action::Rest;
        }
        let Some(vm) = self.vms.get(&body.vm) else { return Action::Rest };
        if vm.deleting {
            let waits = body.role == Role::Active && self.awaits_worker(vm);
            return if waits { Action::Rest } else { Action::Release };
        }
        match body.role {
            Role::Active => {}
            Role::Incoming => return self.next_for_incoming(body),
            // The source's disks are kept until the guest was seen to work elsewhere, or that which
            // brought them there is ended.
            Role::Retiring if self.validates(body.vm) || self.has_arrived(body.vm) => {
                return Action::Rest;
            }
            Role::Retiring => return Action::Release,
        }
        if let Some(action) = self.next_for_migrating(body) {
            return action;
        }
        // A guest that crashed is started again without a turn: that is no operation.
        let again = vm.restarts.not_before_ms > 0 && body.phase.is_at_rest();
        if self.awaits_worker(vm) && !again {
            return Action::Rest;
        }
        if self.may_have_a_twin(body) && body.phase != Phase::Running {
            return Action::Wait(self.now_ms + limit::LOOK_OVER_MS / 10);
        }
        match (body.phase, vm.desired) {
            (Phase::Failed | Phase::Yielded, _) => Action::Rest,
            // It brought the disks of a VM that is stopped, and has never executed.
            (Phase::Arrived, _) => Action::Kill,
            (Phase::Reserved, _) => Action::Prepare,
            (Phase::Ready | Phase::Stopped, Desired::Running | Desired::Paused) => {
                match vm.restarts.not_before_ms {
                    not_before if not_before > self.now_ms => Action::Wait(not_before),
                    _ if vm.pool.is_some() && self.may_write_elsewhere(vm.id) => Action::Rest,
                    _ => Action::Start,
                }
            }
            (Phase::Ready | Phase::Stopped, Desired::Stopped | Desired::Killed) => Action::Rest,
            (Phase::Running, Desired::Running) if body.reboots < vm.reboots => Action::Reboot,
            (Phase::Running, Desired::Running) | (Phase::Paused, Desired::Paused) => Action::Rest,
            (Phase::Running, Desired::Paused) => Action::Pause,
            (Phase::Paused, Desired::Running) => Action::Resume,
            (Phase::Running | Phase::Paused, Desired::Stopped) => {
                let since_ms = vm.desired_since_ms.max(vm.stopping_since_ms);
                let until_ms = since_ms + self.setting(Key::StopGraceMs);
                if self.now_ms >= until_ms {
                    Action::Kill
                } else if body.phase == Phase::Paused {
                    // It cannot answer; it is resumed so that it may shut down in order.
                    Action::Resume
                } else {
                    Action::Shutdown { until_ms }
                }
            }
            (Phase::Running | Phase::Paused, Desired::Killed) => Action::Kill,
        }
    }

    /// Whether the VM's operation waits for its turn. A migration's bodies tell themselves.
    fn awaits_worker(&self, vm: &Vm) -> bool {
        let operation = vm.operation.and_then(|id| self.operations.get(&id));
        operation.is_some_and(|operation| {
            operation.status == Status::Queued && operation.migration.is_none()
        })
    }

    fn validates(&self, vm: VmId) -> bool {
        self.migration_of(vm).is_some_and(|(_, migration)| migration.step == Step::Validate)
    }

    /// Whether a guest of the VM that is given up may still execute, and write to the disks in its pool.
    fn may_write_elsewhere(&self, vm: VmId) -> bool {
        self.spare_of(vm).is_some_and(|spare| {
            let host = self.hosts.get(&spare.host);
            let ended = host.and_then(|host| host.ended).is_some_and(|how| how.covers(spare));
            !ended
                && match spare.phase {
                    Phase::Running | Phase::Paused | Phase::Arrived | Phase::Failed => true,
                    Phase::Reserved | Phase::Ready | Phase::Stopped | Phase::Yielded => false,
                }
        })
    }

    fn has_arrived(&self, vm: VmId) -> bool {
        self.instance_of(vm).is_some_and(|active| active.phase == Phase::Arrived)
    }

    fn next_for_incoming(&self, body: &Instance) -> Action {
        let source_ended =
            self.instance_of(body.vm).is_some_and(|source| source.phase == Phase::Yielded);
        match body.phase {
            Phase::Reserved => Action::Receive,
            Phase::Ready if source_ended => Action::Look,
            // Somebody saw that it is ready, but where it can be sent was not told.
            Phase::Ready if body.landing.is_none() => Action::Receive,
            Phase::Ready
            | Phase::Arrived
            | Phase::Failed
            | Phase::Running
            | Phase::Paused
            | Phase::Stopped
            | Phase::Yielded => Action::Rest,
        }
    }

    /// What a migration wants of the VM's active body, where it wants something.
    fn next_for_migrating(&self, body: &Instance) -> Option<Action> {
        let (operation, migration) = self.migration_of(body.vm)?;
        let unwinding = operation.status == Status::Unwinding;
        let incoming = self.spare_of(body.vm).is_some_and(|spare| spare.role == Role::Incoming);
        match (migration.step, body.phase) {
            (Step::Copy, Phase::Yielded) => Some(Action::Rest),
            (Step::Copy, _) if incoming && unwinding => Some(Action::Abort),
            // A guest that stands still here may be running nowhere or be about to run elsewhere: it
            // is not resumed before the target is given up.
            (Step::Copy, _) if incoming => Some(Action::Send),
            (Step::Validate, Phase::Running) => Some(Action::Validate),
            _ => None,
        }
    }
}
