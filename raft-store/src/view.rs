//! What readers see: the state after some entry, and who belongs to the group.

use domain::{Revision, State};

use crate::types::{Members, Position};

/// A consistent view. It never changes; the next one is another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The state.
    pub state: State,
    /// The newest entry in it.
    pub at: Option<Position>,
    /// The membership in force.
    pub members: Members,
    /// The entry that set it.
    pub members_at: Option<Position>,
}

impl View {
    /// The newest entry in it, as a revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.state.revision()
    }

    /// The hash of the whole history up to it: equal on all nodes at equal revisions.
    #[must_use]
    pub fn chain(&self) -> domain::id::Digest {
        self.state.chain
    }
}
