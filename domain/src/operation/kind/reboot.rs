//! The kind `reboot`: the guest restarts within its body.
//!
//! | step | what is wanted | undo | done when |
//! |---|---|---|---|
//! | reboot | one reboot more than before | none: it was asked already | the body has had as many, and runs |

use super::{Definition, ORDINARY, StepName};
use crate::instance::Phase;

pub(super) const DEFINITION: Definition = Definition {
    name: "reboot",
    steps: &[StepName::Reboot],
    is_reached: |operation, _, body| {
        matches!(body.phase, Phase::Running) && body.reboots >= operation.reboots
    },
    ..ORDINARY
};
