//! The kind `notify`: people are told of alerts that fire, or are over.
//!
//! | step | what is wanted | undo | done when |
//! |---|---|---|---|
//! | tell | every receiver has taken it | nothing to undo | the leading node says so; it tries again until its retries are used up |
//!
//! It is never stuck: what could not be told is told by another one later, as it is then.

use super::{Class, Definition, ORDINARY, StepName};
use crate::setting::Key;

pub(super) const DEFINITION: Definition = Definition {
    name: "notify",
    class: Class::MonitoringAlerts,
    // What is asked of drivers can wait.
    priority: 80,
    deadline: Key::NoticeDeadlineMs,
    steps: &[StepName::Tell],
    ..ORDINARY
};
