//! Locks.

use domain::{State, lock::Lock};

use crate::v1;

/// A lock as the API shows it.
#[must_use]
pub fn lock(state: &State, lock: &Lock) -> v1::Lock {
    v1::Lock {
        project: lock.project.to_string(),
        name: lock.name.to_string(),
        owner: lock.holder.owner.clone(),
        fence: lock.holder.fence.as_u64(),
        ttl_ms: lock.holder.ttl_ms,
        left_ms: lock.holder.until_ms.saturating_sub(state.now_ms),
        waiters: lock.waiters.iter().map(|waiter| waiter.owner.clone()).collect(),
        etag: lock.revision.as_u64(),
    }
}
