//! The kind `drain`: all guests leave a host.
//!
//! | step | what is wanted | undo | done when |
//! |---|---|---|---|
//! | empty | each guest that can leave migrates, as a child of this | those that wait stay; what has left, has left | no body is on the host |
//!
//! It is cancelled by having the host take VMs again. What cannot leave keeps it from its end, and is said.

use super::{Class, Definition, ORDINARY, StepName};
use crate::setting::Key;

pub(super) const DEFINITION: Definition = Definition {
    name: "drain",
    class: Class::Migrations,
    is_parent: true,
    deadline: Key::DrainDeadlineMs,
    steps: &[StepName::Empty],
    ..ORDINARY
};
