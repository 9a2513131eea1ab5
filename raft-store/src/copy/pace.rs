//! When the copy is written.

use std::time::{Duration, Instant};

/// So many entries wait for nothing.
const ENTRIES_TOGETHER: u64 = 16_384;
/// Fewer wait for others in any case.
const ENTRIES_TOGETHER_MIN: u64 = 512;
/// For so many times the processor time of its work the thread rests: it has a tenth of one processor at most, also
/// where another one would be free. What processors do beside each other slows each of them.
const REST: u32 = 9;

/// When a thread last worked, and when it may again.
pub(super) struct Pace {
    /// How long a few entries wait for others at most.
    wait: Duration,
    worked_at: Instant,
    rests_until: Instant,
}

/// What is not in the copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// So many entries.
    pub(super) entries: u64,
    /// The events of so many of the newest entries are known.
    pub(super) known: u64,
    /// Whether events of older ones are forgotten.
    pub(super) forgotten: bool,
}

impl Pace {
    pub(super) fn new(wait: Duration) -> Pace {
        let now = Instant::now();
        Pace { wait, worked_at: now, rests_until: now }
    }

    /// Whether it is time to write.
    pub(super) fn is_due(&self, waiting: Waiting) -> bool {
        self.is_due_at(Instant::now(), waiting)
    }

    fn is_due_at(&self, now: Instant, waiting: Waiting) -> bool {
        let waited = now.saturating_duration_since(self.worked_at);
        let due = waiting.is_urgent() || waited >= self.wait;
        due && now >= self.rests_until
    }

    /// Works, and is to rest then.
    pub(super) fn work<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let before = processor_time();
        let done = work();
        self.worked_at = Instant::now();
        self.rests_until = self.worked_at + REST * processor_time().saturating_sub(before);
        done
    }
}

impl Waiting {
    /// Whether it is to be written now: many entries wait, or so many of those whose events are known that these may be
    /// gone soon, where older ones are forgotten already. When they are gone everything is written anew, and that
    /// waits: the machine has no time for it just now.
    fn is_urgent(self) -> bool {
        let Waiting { entries, known, forgotten } = self;
        let soon_gone =
            forgotten && 4 * entries >= known && entries >= ENTRIES_TOGETHER_MIN.min(known / 2);
        (entries >= ENTRIES_TOGETHER || soon_gone) && entries <= known
    }
}

/// Of this thread.
fn processor_time() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    spent.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_wait_for_others_but_not_until_their_events_are_gone() {
        let many = ENTRIES_TOGETHER;
        for (entries, known, forgotten, urgent) in [
            // A young cluster: nothing is in danger.
            (0, 0, false, false),
            (600, 600, false, false),
            (many, many, false, true),
            (600, 2_500, true, false),
            (600, 2_400, true, true),
            (500, 2_000, true, false),
            // Events of many rows: there are few of them.
            (49, 100, true, false),
            (50, 100, true, true),
            // They are gone.
            (101, 100, true, false),
            (many, many - 1, true, false),
        ] {
            let waiting = Waiting { entries, known, forgotten };
            assert_eq!(waiting.is_urgent(), urgent, "{waiting:?}");
        }
    }

    #[test]
    fn who_worked_rests_for_nine_times_as_long() {
        let mut pace = Pace::new(Duration::ZERO);
        let waiting = Waiting { entries: 0, known: 0, forgotten: false };
        assert!(pace.is_due(waiting));
        pace.work(|| {
            let begun = processor_time();
            while processor_time() < begun + Duration::from_millis(10) {}
        });
        // The machine may stand still for longer than that: nothing here is asked by its clock.
        for now in [pace.worked_at, pace.rests_until - Duration::from_millis(1)] {
            assert!(!pace.is_due_at(now, waiting));
        }
        assert!(pace.is_due_at(pace.rests_until, waiting));
        assert!(pace.rests_until - pace.worked_at >= Duration::from_millis(90));
        // Sleep is no work.
        pace.work(|| std::thread::sleep(Duration::from_millis(50)));
        assert!(pace.rests_until - pace.worked_at < Duration::from_millis(90));
    }
}
