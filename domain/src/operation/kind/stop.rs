//! The kind `stop`: the guest shuts down, by force after a grace period.
//!
//! | step | what is wanted | undo | done when |
//! |---|---|---|---|
//! | shut_down | the guest ends; asked each second, killed after `stop-grace-ms` | what was wanted before | it has ended |

use super::{Definition, ORDINARY, StepName, is_at_rest};

pub(super) const DEFINITION: Definition = Definition {
    name: "stop",
    priority: 70,
    is_undoable: true,
    steps: &[StepName::ShutDown],
    is_reached: |_, _, body| is_at_rest(body.phase),
    ..ORDINARY
};
