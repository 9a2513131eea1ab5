//! The kind `kill`: the guest's power is cut.
//!
//! | step | what is wanted | undo | done when |
//! |---|---|---|---|
//! | kill | no process | none: what is destroyed first is what one would want back | the guest has ended |
//!
//! It overtakes what is under way and waits for no worker: who cuts the power has a reason.

use super::{Definition, ORDINARY, StepName, is_at_rest};

pub(super) const DEFINITION: Definition = Definition {
    name: "kill",
    priority: 90,
    is_urgent: true,
    steps: &[StepName::Kill],
    is_reached: |_, _, body| is_at_rest(body.phase),
    ..ORDINARY
};
