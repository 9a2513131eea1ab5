//! The kind `probe`: hosts' drivers are asked whether they answer.
//!
//! | step | what is wanted | undo | done when |
//! |---|---|---|---|
//! | ask | the driver says what its host has | nothing to undo | it has answered, or failed three times |
//!
//! Of several hosts each is a child; the parent ends with the last of them.

use super::{Class, Definition, ORDINARY, StepName};
use crate::setting::Key;

/// Failures after which a driver counts as one that does not answer.
pub const RETRIES: u32 = 3;

pub(super) const DEFINITION: Definition = Definition {
    name: "probe",
    class: Class::MonitoringAlerts,
    deadline: Key::ProbeDeadlineMs,
    steps: &[StepName::Ask],
    ..ORDINARY
};
