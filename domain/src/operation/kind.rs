//! The kinds of operation. Each has a file with its steps and its definition; what is common to all reads
//! the definitions.

mod create;
mod delete;
mod drain;
mod failover;
mod kill;
mod migrate;
mod notify;
mod pause;
mod probe;
mod reboot;
mod restore;
mod resume;
mod start;
mod stop;

use serde::{Deserialize, Serialize};

use super::{Class, Operation, StepName};
use crate::{
    instance::{Instance, Phase},
    setting::Key,
    vm::{Desired, Vm},
};

pub use probe::RETRIES as PROBE_RETRIES;

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
    /// Move the VM to another host.
    Migrate,
    /// Make the VM anew on another host, because its own was lost.
    Failover,
    /// Have all guests leave a host.
    Drain,
    /// See whether hosts' drivers answer.
    Probe,
    /// Have guests come back to a host that was drained.
    Restore,
    /// Tell people of alerts.
    Notify,
}

/// What a kind is.
pub struct Definition {
    /// The name in the API and the CLI.
    pub name: &'static str,
    /// Whose workers it needs.
    pub class: Class,
    /// Its place among others of its class, unless somebody says otherwise.
    pub priority: u8,
    /// Whether the work so far can be taken back by turning the wish back.
    pub is_undoable: bool,
    /// Whether it needs no worker's turn: what frees resources in an emergency.
    pub is_urgent: bool,
    /// Whether it only waits for its children.
    pub is_parent: bool,
    /// How long it may wait for its turn, and then how long it may take.
    pub deadline: Key,
    /// Its steps, in order.
    pub steps: &'static [StepName],
    /// Whether a body of the VM is what was asked for.
    pub(super) is_reached: fn(&Operation, &Vm, &Instance) -> bool,
}

/// What most kinds have in common.
const ORDINARY: Definition = Definition {
    name: "",
    class: Class::VmOperations,
    priority: 50,
    is_undoable: false,
    is_urgent: false,
    is_parent: false,
    deadline: Key::OperationDeadlineMs,
    steps: &[],
    is_reached: |_, _, _| false,
};

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 14] = [
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
        Kind::Drain,
        Kind::Probe,
        Kind::Restore,
        Kind::Notify,
    ];

    /// What it is.
    #[must_use]
    pub const fn definition(self) -> &'static Definition {
        match self {
            Kind::Create => &create::DEFINITION,
            Kind::Start => &start::DEFINITION,
            Kind::Stop => &stop::DEFINITION,
            Kind::Kill => &kill::DEFINITION,
            Kind::Reboot => &reboot::DEFINITION,
            Kind::Pause => &pause::DEFINITION,
            Kind::Resume => &resume::DEFINITION,
            Kind::Delete => &delete::DEFINITION,
            Kind::Migrate => &migrate::DEFINITION,
            Kind::Failover => &failover::DEFINITION,
            Kind::Drain => &drain::DEFINITION,
            Kind::Probe => &probe::DEFINITION,
            Kind::Restore => &restore::DEFINITION,
            Kind::Notify => &notify::DEFINITION,
        }
    }

    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.definition().name
    }
}

/// Whether a body in `phase` is what is wanted.
pub(super) const fn is_as_desired(desired: Desired, phase: Phase) -> bool {
    match desired {
        Desired::Running => matches!(phase, Phase::Running),
        Desired::Paused => matches!(phase, Phase::Paused),
        Desired::Stopped | Desired::Killed => is_at_rest(phase),
    }
}

const fn is_at_rest(phase: Phase) -> bool {
    matches!(phase, Phase::Ready | Phase::Stopped)
}
