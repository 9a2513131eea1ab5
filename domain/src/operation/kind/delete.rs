//! The kind `delete`: the VM is removed.
//!
//! | step | what is wanted | undo | done when |
//! |---|---|---|---|
//! | release | no guest, no disks, no definition | none: disks do not come back | every body is gone |
//!
//! It overtakes what is under way. The end is told by the VM's row going, not by a body.

use super::{Definition, ORDINARY, StepName};

pub(super) const DEFINITION: Definition =
    Definition { name: "delete", priority: 80, steps: &[StepName::Release], ..ORDINARY };
