//! The kind `failover`: a VM is made anew on another host, because its own was lost.
//!
//! | step | what is wanted | undo | done when | why in this order |
//! |---|---|---|---|---|
//! | place | another host with room | none | it is placed | the old body is given up before, on evidence |
//! | prepare | disks and a definition | none | the body is ready | |
//! | start | the guest | none | it is as wanted | |
//!
//! It begins past its point of no return: a lost host does not come back by being asked.

use super::{Definition, ORDINARY, StepName, is_as_desired};

pub(super) const DEFINITION: Definition = Definition {
    name: "failover",
    steps: &[StepName::Place, StepName::Prepare, StepName::Start],
    is_reached: |_, vm, body| is_as_desired(vm.desired, body.phase),
    ..ORDINARY
};
