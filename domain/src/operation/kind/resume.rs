//! The kind `resume`: a paused guest goes on.
//!
//! | step | what is wanted | undo | done when |
//! |---|---|---|---|
//! | resume | its processors run | it stands still again | it runs |

use super::{Definition, ORDINARY, StepName};
use crate::instance::Phase;

pub(super) const DEFINITION: Definition = Definition {
    name: "resume",
    is_undoable: true,
    steps: &[StepName::Resume],
    is_reached: |_, _, body| matches!(body.phase, Phase::Running),
    ..ORDINARY
};
