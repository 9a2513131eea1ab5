//! What a user sees as the VM's state.

use super::{Desired, Vm};
use crate::{State, instance::Phase as Body, operation::Step};

/// Derived, never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// No host has it yet.
    Pending,
    /// Its body is being made.
    Creating,
    /// Its guest is being started.
    Starting,
    /// Its guest executes.
    Running,
    /// Its guest is being paused.
    Pausing,
    /// Its guest stands still in memory.
    Paused,
    /// Its guest is being shut down.
    Stopping,
    /// Its body is ready and its guest does not run.
    Stopped,
    /// Its guest is on its way to another host.
    Migrating,
    /// Its guest crashed and is waiting to be started again.
    Restarting,
    /// Its body cannot be made or started without a change.
    Failed,
    /// Its host has not been heard of; the guest may or may not run.
    Unknown,
    /// On its way out.
    Deleting,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Phase; 13] = [
        Phase::Pending,
        Phase::Creating,
        Phase::Starting,
        Phase::Running,
        Phase::Pausing,
        Phase::Paused,
        Phase::Stopping,
        Phase::Stopped,
        Phase::Migrating,
        Phase::Restarting,
        Phase::Failed,
        Phase::Unknown,
        Phase::Deleting,
    ];

    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "pending",
            Phase::Creating => "creating",
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Pausing => "pausing",
            Phase::Paused => "paused",
            Phase::Stopping => "stopping",
            Phase::Stopped => "stopped",
            Phase::Migrating => "migrating",
            Phase::Restarting => "restarting",
            Phase::Failed => "failed",
            Phase::Unknown => "unknown",
            Phase::Deleting => "deleting",
        }
    }
}

impl State {
    /// What the user sees of `vm`.
    #[must_use]
    pub fn phase(&self, vm: &Vm) -> Phase {
        if vm.deleting {
            return Phase::Deleting;
        }
        let Some(body) = self.instance_of(vm.id) else { return Phase::Pending };
        if !self.is_known(body) {
            return Phase::Unknown;
        }
        let wants_run = match vm.desired {
            Desired::Running | Desired::Paused => true,
            Desired::Stopped | Desired::Killed => false,
        };
        let migrates = self
            .migration_of(vm.id)
            .is_some_and(|(_, migration)| !matches!(migration.step, Step::Reserve | Step::Retire));
        match body.phase {
            Body::Yielded | Body::Arrived => Phase::Migrating,
            Body::Running | Body::Paused if migrates => Phase::Migrating,
            Body::Failed => Phase::Failed,
            Body::Reserved => Phase::Creating,
            Body::Ready | Body::Stopped if !wants_run => Phase::Stopped,
            Body::Stopped if vm.restarts.not_before_ms > self.now_ms => Phase::Restarting,
            Body::Ready | Body::Stopped => Phase::Starting,
            Body::Running => match vm.desired {
                Desired::Running => Phase::Running,
                Desired::Paused => Phase::Pausing,
                Desired::Stopped | Desired::Killed => Phase::Stopping,
            },
            Body::Paused => match vm.desired {
                Desired::Running => Phase::Starting,
                Desired::Paused => Phase::Paused,
                Desired::Stopped | Desired::Killed => Phase::Stopping,
            },
        }
    }
}
