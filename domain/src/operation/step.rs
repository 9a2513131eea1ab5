//! The names of all steps of all kinds, as they are recorded with their times.

use serde::{Deserialize, Serialize};

use super::{Kind, Operation, Status, migration};
use crate::{State, instance::Phase};

/// Names a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepName {
    /// A host is looked for.
    Place,
    /// Disks and a definition are made.
    Prepare,
    /// The guest is started.
    Start,
    /// The guest is asked to end.
    ShutDown,
    /// The guest's power is cut.
    Kill,
    /// The guest restarts.
    Reboot,
    /// The guest is to stand still.
    Pause,
    /// The guest is to go on.
    Resume,
    /// The bodies are removed.
    Release,
    /// See [`migration::Step::Reserve`].
    Reserve,
    /// See [`migration::Step::Copy`].
    Copy,
    /// See [`migration::Step::Validate`].
    Validate,
    /// See [`migration::Step::Retire`].
    Retire,
    /// Guests leave a host.
    Empty,
    /// Guests come back to a host.
    Return,
    /// A driver is asked.
    Ask,
    /// People are told.
    Tell,
}

impl StepName {
    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            StepName::Place => "place",
            StepName::Prepare => "prepare",
            StepName::Start => "start",
            StepName::ShutDown => "shut_down",
            StepName::Kill => "kill",
            StepName::Reboot => "reboot",
            StepName::Pause => "pause",
            StepName::Resume => "resume",
            StepName::Release => "release",
            StepName::Reserve => "reserve",
            StepName::Copy => "copy",
            StepName::Validate => "validate",
            StepName::Retire => "retire",
            StepName::Empty => "empty",
            StepName::Return => "return",
            StepName::Ask => "ask",
            StepName::Tell => "tell",
        }
    }
}

impl From<migration::Step> for StepName {
    fn from(step: migration::Step) -> StepName {
        match step {
            migration::Step::Reserve => StepName::Reserve,
            migration::Step::Prepare => StepName::Prepare,
            migration::Step::Copy => StepName::Copy,
            migration::Step::Validate => StepName::Validate,
            migration::Step::Retire => StepName::Retire,
        }
    }
}

/// The step that an operation is at, as its VM's body shows it.
pub(super) fn of(state: &State, operation: &Operation) -> StepName {
    if let Some(migration) = &operation.migration {
        return migration.step.into();
    }
    let body = operation.vm().and_then(|vm| state.instance_of(vm));
    match operation.kind {
        Kind::Create | Kind::Failover => match body.map(|body| body.phase) {
            None => StepName::Place,
            Some(Phase::Reserved | Phase::Failed) => StepName::Prepare,
            Some(_) => StepName::Start,
        },
        Kind::Start
        | Kind::Stop
        | Kind::Kill
        | Kind::Reboot
        | Kind::Pause
        | Kind::Resume
        | Kind::Delete
        | Kind::Migrate
        | Kind::Drain
        | Kind::Probe
        | Kind::Notify
        | Kind::Restore => operation.kind.definition().steps[0],
    }
}

/// The same operation with the step noted that it is at. One that waits for a worker is at none yet; a host
/// is looked for before.
pub(super) fn noted(state: &State, operation: Operation, wall_ms: u64) -> Operation {
    let step = of(state, &operation);
    let begun = operation.status == Status::Running || step == StepName::Place;
    if begun { operation.at(step, wall_ms) } else { operation }
}

impl Operation {
    /// The same, at a step; told once.
    pub(crate) fn at(mut self, step: StepName, wall_ms: u64) -> Operation {
        if self.steps.last().is_none_or(|(last, _)| *last != step) {
            self.steps.push((step, wall_ms));
        }
        self
    }
}
