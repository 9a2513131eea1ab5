//! The kind `start`: the guest runs.
//!
//! | step | what is wanted | undo | done when |
//! |---|---|---|---|
//! | start | the guest; a paused one goes on | what was wanted before | it runs |

use super::{Definition, ORDINARY, StepName};
use crate::instance::Phase;

pub(super) const DEFINITION: Definition = Definition {
    name: "start",
    is_undoable: true,
    steps: &[StepName::Start],
    is_reached: |_, _, body| matches!(body.phase, Phase::Running),
    ..ORDINARY
};
