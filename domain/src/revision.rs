//! Positions in the cluster's history.

use serde::{Deserialize, Serialize};

/// `epoch << 48 | log index`. One integer that only grows, also across `cluster recover`, which
/// raises the epoch and may lose a suffix of the log. To clients it is opaque but ordered.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(u64);

/// A fencing token: the revision of the grant. A resource that remembers the highest fence it saw
/// and refuses lower ones cannot be touched by a stale owner.
pub type Fence = Revision;

const INDEX_BITS: u32 = 48;

impl Revision {
    /// Before the first entry.
    pub const ZERO: Revision = Revision(0);

    /// The position of log entry `index` in `epoch`.
    ///
    /// # Panics
    /// When `index` needs more than 48 bits: a million entries a second for eight years.
    #[must_use]
    pub fn new(epoch: u16, index: u64) -> Revision {
        assert!(index >> INDEX_BITS == 0, "log index {index} exceeds 48 bits");
        Revision(u64::from(epoch) << INDEX_BITS | index)
    }

    /// The integer that travels and that outside resources compare.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Reads what [`Revision::as_u64`] gave.
    #[must_use]
    pub const fn from_u64(packed: u64) -> Revision {
        Revision(packed)
    }

    /// The recovery epoch.
    #[must_use]
    pub const fn epoch(self) -> u16 {
        (self.0 >> INDEX_BITS) as u16
    }

    /// The log index within the epoch's log.
    #[must_use]
    pub const fn index(self) -> u64 {
        self.0 & ((1 << INDEX_BITS) - 1)
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_epoch_is_later_whatever_the_index() {
        let old = Revision::new(1, 1 << 47);
        let new = Revision::new(2, 1);
        assert!(old < new);
        assert_eq!((new.epoch(), new.index()), (2, 1));
        assert_eq!(Revision::from_u64(new.as_u64()), new);
    }
}
