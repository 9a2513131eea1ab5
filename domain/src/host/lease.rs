//! The lease of a host: while it holds one, nobody else touches its bodies.
//!
//! Leases live beside the hosts and not in their rows: a renewal every second must neither write a
//! row nor wake a watcher.

use serde::{Deserialize, Serialize};

use super::Status;
use crate::{
    Draft, Fence,
    id::{BootId, HostId},
    limit,
    rejected::{Reason, Rejected},
    vm,
};

/// Time-bound ownership. Times are lease time, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The revision of the grant; a later grant is higher.
    pub fence: Fence,
    /// The boot it was granted to.
    pub boot: BootId,
    /// When it was granted or last renewed.
    pub at_ms: u64,
    /// How long it lasts from then.
    pub ttl_ms: u64,
}

impl Lease {
    /// Whether it has lapsed at `now_ms`.
    #[must_use]
    pub const fn is_lapsed(&self, now_ms: u64) -> bool {
        now_ms > self.at_ms + self.ttl_ms
    }
}

/// Renews leases whose holder still holds them. A host that is left out must be taken up anew.
pub(super) fn renew(draft: &mut Draft, rows: &[(HostId, Fence)]) -> Result<(), Rejected> {
    if rows.len() > limit::BATCH_MAX {
        return Err(Rejected::new(Reason::TooLarge, "too many rows in one command"));
    }
    let now_ms = draft.state().now_ms;
    for (host, fence) in rows {
        let state = draft.state();
        let ready = state.hosts.get(host).is_some_and(|host| host.status == Status::Ready);
        match state.leases.get(host) {
            Some(lease) if ready && lease.fence == *fence => {
                let lease = Lease { at_ms: now_ms, ..*lease };
                draft.grant_lease(*host, lease);
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

/// Marks the hosts whose leases have lapsed as lost, and notes what that proves.
pub(crate) fn expire(draft: &mut Draft) {
    let state = draft.state();
    let lapsed: Vec<HostId> = state
        .leases
        .iter()
        .filter(|(_, lease)| lease.is_lapsed(state.now_ms))
        .map(|(host, _)| *host)
        .collect();
    for id in &lapsed {
        super::lose(draft, *id);
        super::fencing::lapsed(draft, *id);
    }
    if !lapsed.is_empty() {
        vm::clear_pools(draft);
    }
}
