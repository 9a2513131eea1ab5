//! How often a child is started again: soon at first, later when it keeps failing. There is no end
//! to it: a node without its staff is no use, and the pause keeps it from doing harm.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The failures of one child in the last minute.
#[derive(Debug, Default)]
pub(crate) struct Failures(VecDeque<Instant>);

impl Failures {
    /// Notes a failure; the answer is the pause before the next start.
    pub(crate) fn note(&mut self) -> Duration {
        let now = Instant::now();
        while self.0.front().is_some_and(|then| now.duration_since(*then) > WINDOW) {
            self.0.pop_front();
        }
        let doublings = u32::try_from(self.0.len()).unwrap_or(u32::MAX).min(16);
        self.0.push_back(now);
        (PAUSE_MIN * 2_u32.pow(doublings)).min(PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_and_has_a_bound() {
        let mut failures = Failures::default();
        let pauses: Vec<Duration> = (0..20).map(|_| failures.note()).collect();
        assert_eq!(pauses[0], PAUSE_MIN);
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(pauses[19], PAUSE_MAX);
    }
}
