//! Failures on demand.

use std::collections::VecDeque;

use crate::ErrorKind;

/// A call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// See [`crate::Driver::observe`].
    Observe,
    /// See [`crate::Driver::prepare`].
    Prepare,
    /// See [`crate::Driver::start`].
    Start,
    /// See [`crate::Driver::shutdown`].
    Shutdown,
    /// See [`crate::Driver::kill`].
    Kill,
    /// See [`crate::Driver::reboot`].
    Reboot,
    /// See [`crate::Driver::pause`].
    Pause,
    /// See [`crate::Driver::resume`].
    Resume,
    /// See [`crate::Driver::release`].
    Release,
    /// See [`crate::Driver::discard`].
    Discard,
    /// See [`crate::Migration::receive`].
    Receive,
    /// See [`crate::Migration::send`].
    Send,
    /// See [`crate::Migration::abort`].
    Abort,
}

/// Failures that will happen, in order. [`ErrorKind::Ambiguous`] loses the answer after the effect;
/// every other kind fails before it.
#[derive(Debug, Default)]
pub struct Faults {
    planned: VecDeque<(Call, ErrorKind)>,
}

impl Faults {
    /// The next `call` that has no failure planned yet fails this way.
    pub fn plan(&mut self, call: Call, kind: ErrorKind) {
        self.planned.push_back((call, kind));
    }

    /// How many are still to come.
    #[must_use]
    pub fn left(&self) -> usize {
        self.planned.len()
    }

    pub(super) fn take(&mut self, call: Call) -> Option<ErrorKind> {
        let index = self.planned.iter().position(|(planned, _)| *planned == call)?;
        self.planned.remove(index).map(|(_, kind)| kind)
    }
}
