//! Lease time: the leader's clock since it became leader, on top of where the state stood then.
//!
//! The clock is the one since the machine booted. It goes on while the machine sleeps and nobody
//! can set it; the wall clock has no part in leases.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{ground::Clocks, is_broken};

pub(crate) struct LeaseClock {
    clocks: Clocks,
    segment: Mutex<Option<Segment>>,
}

struct Segment {
    term: u64,
    base_ms: u64,
    began: Duration,
}

impl LeaseClock {
    pub(crate) fn new(clocks: Clocks) -> LeaseClock {
        LeaseClock { clocks, segment: Mutex::default() }
    }

    /// Lease time for a proposal of this node as the leader of `term`, whose state stands at `now_ms` and holds
    /// an entry of its own from that term. Two leaders' segments cannot overlap: the later one begins after it
    /// has applied all of the earlier one's entries.
    pub(crate) fn stamp(&self, term: u64, now_ms: u64) -> u64 {
        let mut segment = self.segment.lock().unwrap_or_else(PoisonError::into_inner);
        let running = if is_broken("wall-clock-leases") {
            Duration::from_millis((self.clocks.wall_ms)())
        } else {
            (self.clocks.since_boot)()
        };
        let current = segment.take_if(|segment| segment.term == term).unwrap_or(Segment {
            term,
            base_ms: now_ms,
            began: running,
        });
        let elapsed = running.saturating_sub(current.began);
        let at_ms = current.base_ms + u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        *segment = Some(current);
        at_ms.max(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_time_continues_and_never_turns_back() {
        let clock = LeaseClock::new(Clocks::MACHINE);
        let first = clock.stamp(1, 1_000);
        assert!((1_000..1_100).contains(&first));
        // The state may be ahead of this leader's segment, never behind what was stamped.
        assert_eq!(clock.stamp(1, 9_000_000), 9_000_000);
        // A new term begins where the state stands.
        assert!((500..600).contains(&clock.stamp(2, 500)));
    }
}
