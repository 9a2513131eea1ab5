//! Moving a body from one host to another of the same kind, with its guest if that executes.

use async_trait::async_trait;
use domain::{
    Fence,
    id::VmId,
    instance::Landing,
    operation::{CopyPolicy, Progress},
};

use crate::{DriverError, ErrorKind, Order};

/// What a driver can do that moves bodies.
///
/// A guest that has come stands still, and observes as [`domain::instance::Body::Arrived`], until
/// [`crate::Driver::resume`] lets it go on. Neither side lets it execute by itself, whatever answer
/// was lost on the way.
#[async_trait]
pub trait Migration: Send + Sync {
    /// Makes ready for a guest that is to come: everything the order says, but no guest.
    async fn receive(&self, order: &Order) -> Result<Landing, DriverError>;

    /// Sends the guest, or of a body at rest its disks by a guest that never executes; of that nothing
    /// is observed here but that the body is at rest. Returns when it has left or cannot be sent. A sending that is under way
    /// already is waited for. Where it succeeds the body observes as
    /// [`domain::instance::Ended::Migrated`]: the guest has not executed here since the copy was
    /// whole. A guest that has come and was not resumed since cannot be sent.
    async fn send(&self, departure: &Departure) -> Result<(), DriverError>;

    /// Ends a sending. When it returns nothing is being sent, and no [`Migration::send`] under a
    /// lower fence will be.
    async fn abort(&self, vm: VmId, fence: Fence) -> Result<(), DriverError>;

    /// How far a sending is; none when none is under way.
    async fn progress(&self, vm: VmId) -> Result<Option<Progress>, DriverError>;

    /// Whether the guest's agent answers; none when the guest has no agent that listens.
    async fn answers(&self, vm: VmId) -> Result<Option<bool>, DriverError>;
}

/// A guest that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The VM.
    pub vm: VmId,
    /// The fence under which this is ordered.
    pub fence: Fence,
    /// Where to.
    pub landing: Landing,
    /// How.
    pub policy: CopyPolicy,
    /// Whether the body is at rest. One that is not as was thought is not sent.
    pub at_rest: bool,
    /// Whether its disks lie in a pool, which the target sees too: they are not copied.
    pub pooled: bool,
}

/// What one says who cannot.
#[must_use]
pub fn cannot_migrate() -> DriverError {
    DriverError::new(ErrorKind::Permanent, "the host's driver cannot move VMs")
}
