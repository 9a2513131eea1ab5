//! When a node asks for a host again that it was not given.

use std::time::Duration;

use raft_store::ProposeError;
use tokio::time::Instant;

/// After the first refusal, and after many: each is an entry of the cluster's log.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What came of asking so far.
pub(super) struct Claim {
    not_before: Instant,
    pause: Duration,
    /// Why it was not given, as was told last.
    told: Option<String>,
}

impl Default for Claim {
    fn default() -> Claim {
        Claim { not_before: Instant::now(), pause: PAUSE, told: None }
    }
}

impl Claim {
    /// Whether the host may be asked for.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.not_before
    }

    /// The host was not given. The answer is whether that is news to whoever reads the log.
    pub(super) fn refused(&mut self, error: &ProposeError) -> bool {
        self.pause = match error {
            // It was decided, and is decided in the same way until something else is.
            ProposeError::Rejected(_) => (self.pause * 2).min(PAUSE_MAX),
            ProposeError::Unavailable(_) | ProposeError::Unknown(_) => PAUSE,
        };
        self.not_before = Instant::now() + self.pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        let why = error.to_string();
        let is_news = self.told.as_ref() != Some(&why);
        self.told = Some(why);
        is_news
    }
}
