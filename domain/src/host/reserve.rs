//! Room that is kept for a lost host: VMs that may be made anew must fit on the hosts that are left.
//!
//! It is counted in sums over the hosts that are left, not by packing: a VM as large as a host may fit in the
//! sum and on none of them.

use crate::{
    State,
    host::{Capacity, Host},
    id::HostId,
    setting::Key,
};

/// What a host is in the count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The host.
    pub host: HostId,
    /// What is free on it for VMs that come; nothing, when none may.
    pub free: Capacity,
    /// What those on it take that may be made anew.
    pub movable: Capacity,
}

impl Share {
    /// That of a host on which so much is used.
    #[must_use]
    pub fn of(state: &State, host: &Host, used: Capacity) -> Share {
        let free =
            if host.takes_bodies() { host.allocatable().minus(used) } else { Capacity::default() };
        Share { host: host.id, free, movable: state.movable_on(host.id) }
    }
}

/// The room that is left, as far as one lost host needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    shares: Vec<Share>,
    free: Capacity,
}

impl Reserve {
    /// Of these hosts; `None` when no room is kept.
    #[must_use]
    pub fn of(state: &State, shares: impl Iterator<Item = Share>) -> Option<Reserve> {
        if state.setting(Key::FailoverReserve) == 0 {
            return None;
        }
        let mut reserve = Reserve::default();
        for share in shares {
            reserve.free = reserve.free.plus(share.free);
            reserve.shares.push(share);
        }
        Some(reserve)
    }

    /// Whether there is still room for each host's VMs on the others when a VM of this size comes to `host`.
    #[must_use]
    pub fn allows(&self, host: HostId, size: Capacity, movable: bool) -> bool {
        self.shares.iter().all(|lost| {
            let others = self.free.minus(lost.free);
            let (others, mut needed) = match lost.host == host {
                true => (others, lost.movable),
                false => (others.minus(size), lost.movable),
            };
            if lost.host == host && movable {
                needed = needed.plus(size);
            }
            needed.fits(others, Capacity::default())
        })
    }
}

impl State {
    /// What the bodies on `host` take that may be made anew elsewhere.
    #[must_use]
    pub fn movable_on(&self, host: HostId) -> Capacity {
        self.movable.get(&host).copied().unwrap_or_default()
    }
}
