//! The kind `migrate`: a VM moves to another host. Its steps, and what is undone and when,
//! are in [`super::super::migration`]: two bodies need rules of their own.

use super::{Class, Definition, ORDINARY, StepName};
use crate::setting::Key;

pub(super) const DEFINITION: Definition = Definition {
    name: "migrate",
    class: Class::Migrations,
    priority: 0,
    deadline: Key::MigrationDeadlineMs,
    steps: &[
        StepName::Reserve,
        StepName::Prepare,
        StepName::Copy,
        StepName::Validate,
        StepName::Retire,
    ],
    ..ORDINARY
};
