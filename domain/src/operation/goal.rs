//! The kinds of operation, and when each has reached its goal.

use serde::{Deserialize, Serialize};

use super::Operation;
use crate::{
    instance::{Instance, Phase},
    vm::{Desired, Vm},
};

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Make a VM, and start it if asked.
    Create,
    /// Run the guest.
    Start,
    /// Shut the guest down, by force after a grace period.
    Stop,
    /// Cut the guest's power.
    Kill,
    /// Restart the guest.
    Reboot,
    /// Let the guest stand still.
    Pause,
    /// Let the guest go on.
    Resume,
    /// Remove the VM.
    Delete,
    /// Move the running guest to another host.
    Migrate,
    /// Make the VM anew on another host, because its own was lost.
    Failover,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 10] = [
        Kind::Create,
        Kind::Start,
        Kind::Stop,
        Kind::Kill,
        Kind::Reboot,
        Kind::Pause,
        Kind::Resume,
        Kind::Delete,
        Kind::Migrate,
        Kind::Failover,
    ];

    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Create => "create",
            Kind::Start => "start",
            Kind::Stop => "stop",
            Kind::Kill => "kill",
            Kind::Reboot => "reboot",
            Kind::Pause => "pause",
            Kind::Resume => "resume",
            Kind::Delete => "delete",
            Kind::Migrate => "migrate",
            Kind::Failover => "failover",
        }
    }

    /// Whether the work so far can be taken back. Cutting power and deleting cannot: what they
    /// destroy first is what one would want back. A lost host does not come back by being asked.
    #[must_use]
    pub const fn is_undoable(self) -> bool {
        match self {
            Kind::Create | Kind::Start | Kind::Stop | Kind::Pause | Kind::Resume => true,
            // Of its own way; see `instance::pair`.
            Kind::Migrate => false,
            Kind::Kill | Kind::Reboot | Kind::Delete | Kind::Failover => false,
        }
    }
}

/// Whether what was asked is so.
pub(super) fn is_reached(operation: &Operation, vm: &Vm, body: &Instance) -> bool {
    match operation.kind {
        Kind::Create | Kind::Failover => is_as_desired(vm.desired, body.phase),
        Kind::Start | Kind::Resume => body.phase == Phase::Running,
        Kind::Stop | Kind::Kill => matches!(body.phase, Phase::Ready | Phase::Stopped),
        Kind::Pause => body.phase == Phase::Paused,
        Kind::Reboot => body.phase == Phase::Running && body.reboots >= operation.reboots,
        Kind::Delete | Kind::Migrate => false,
    }
}

/// Whether a body in `phase` is what is wanted.
pub(super) const fn is_as_desired(desired: Desired, phase: Phase) -> bool {
    match desired {
        Desired::Running => matches!(phase, Phase::Running),
        Desired::Paused => matches!(phase, Phase::Paused),
        Desired::Stopped | Desired::Killed => matches!(phase, Phase::Ready | Phase::Stopped),
    }
}
