//! The kind `restore`: VMs come back to a host that they left because it was drained.
//!
//! | step | what is wanted | undo | done when |
//! |---|---|---|---|
//! | return | each guest migrates home, as a child of this | those that wait stay; what has come, has come | the last of them has ended |
//!
//! A guest that was moved by hand since has no home, and stays where it was put.

use super::{Class, Definition, ORDINARY, StepName};
use crate::setting::Key;

pub(super) const DEFINITION: Definition = Definition {
    name: "restore",
    class: Class::Migrations,
    is_parent: true,
    deadline: Key::DrainDeadlineMs,
    steps: &[StepName::Return],
    ..ORDINARY
};
