//! The kind `create`: a VM is made, and started if asked.
//!
//! | step | what is wanted | undo | done when | why in this order |
//! |---|---|---|---|---|
//! | place | a host with room | forget the VM | it is placed | nothing is made before it is booked |
//! | prepare | disks and a definition | remove them | the body is ready | what is not whole is not started |
//! | start | the guest | end it, remove the body | it runs, or is to stay stopped | |
//!
//! There is no point of no return: until the end a cancel removes the VM.

use super::{Definition, ORDINARY, StepName, is_as_desired};

pub(super) const DEFINITION: Definition = Definition {
    name: "create",
    is_undoable: true,
    steps: &[StepName::Place, StepName::Prepare, StepName::Start],
    is_reached: |_, vm, body| is_as_desired(vm.desired, body.phase),
    ..ORDINARY
};
