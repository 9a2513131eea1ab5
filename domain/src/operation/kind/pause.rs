//! The kind `pause`: the guest stands still in memory.
//!
//! | step | what is wanted | undo | done when |
//! |---|---|---|---|
//! | pause | no processor runs | it goes on | it stands still |

use super::{Definition, ORDINARY, StepName};
use crate::instance::Phase;

pub(super) const DEFINITION: Definition = Definition {
    name: "pause",
    is_undoable: true,
    steps: &[StepName::Pause],
    is_reached: |_, _, body| matches!(body.phase, Phase::Paused),
    ..ORDINARY
};
