//! What a guard may be asked, and how its deadline follows from a lease.

use std::{fmt, str::FromStr, sync::OnceLock, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// A renewal of a host's lease that the cluster has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warrant {
    /// The lease's fence: a later grant has a higher one.
    pub lease: u64,
    /// When the renewal was asked for, as [`since_boot`] tells it: before anything was sent.
    pub asked: Duration,
    /// How long the lease lasts from when the cluster decided.
    pub ttl: Duration,
}

/// What a guard may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Whether it can end guests; it has tried.
    Ready,
    /// Let guests execute until the deadline that follows from a renewal.
    Hold(Warrant),
    /// Whether the guest of this VM, which is there and stands still, may begin to execute, or go on, under
    /// this lease.
    May(u64, String),
    /// End every guest now, spared ones too: the host was said to be off.
    End,
}

/// By how much a host's clock and the leader's may differ in speed, both together, percent.
const DRIFT_PERCENT: u32 = 10;
/// How long killing may take.
const KILL_BUDGET: Duration = Duration::from_secs(2);

/// How long after the last sign of life of its guard a host with a watchdog is reset.
pub const WATCHDOG: Duration = Duration::from_secs(12);
/// By how much a watchdog may be late: some count whole seconds.
const WATCHDOG_ROUNDING: Duration = Duration::from_secs(1);
/// How old a renewal may be at least, for how long a watchdog must be kept quiet: what is slow for a moment
/// must not reset a host.
const RENEWAL_AGE: Duration = Duration::from_secs(3);

/// What a guard makes sure of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// That guests end, if it can do it itself.
    Guard,
    /// That they end also when it stands still: then the machine is reset.
    Watchdog,
}

impl Level {
    /// What a guard with a watchdog makes sure of under leases that last so long. Under a short one the
    /// watchdog could not wait for a renewal.
    #[must_use]
    pub fn with_watchdog(ttl: Duration) -> Level {
        let until = deadline(Duration::ZERO, ttl);
        if may_pet(until, RENEWAL_AGE) { Level::Watchdog } else { Level::Guard }
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Guard => "guard",
            Level::Watchdog => "watchdog",
        }
    }
}

/// Whether the watchdog of a guard whose [`deadline`] is `until` may be had count anew: should nobody be heard of
/// from now on, the machine is reset before others act.
#[must_use]
pub fn may_pet(until: Duration, now: Duration) -> bool {
    now + WATCHDOG + WATCHDOG_ROUNDING <= until + KILL_BUDGET
}

/// When the guests of a host must have begun to be ended. Others act when the lease has lapsed by the
/// leader's clock, which was read after `asked`; this is before that by the drift and the time that
/// killing takes.
#[must_use]
pub fn deadline(asked: Duration, ttl: Duration) -> Duration {
    asked + (ttl * (100 - DRIFT_PERCENT) / 100).saturating_sub(KILL_BUDGET)
}

/// Time since the machine booted, sleep included.
#[must_use]
pub fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let time = Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    );
    pace_percent().map_or(time, |percent| time * percent / 100)
}

/// How fast a test wants the clock to go: `NOVACRON_TEST_CLOCK_PERCENT`. In a release it goes as it goes.
fn pace_percent() -> Option<u32> {
    static PERCENT: OnceLock<Option<u32>> = OnceLock::new();
    let told = || std::env::var("NOVACRON_TEST_CLOCK_PERCENT").ok()?.parse().ok();
    *PERCENT.get_or_init(|| told().filter(|_| cfg!(debug_assertions)))
}

impl fmt::Display for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Ready => write!(out, "ready"),
            Request::Hold(Warrant { lease, asked, ttl }) => {
                write!(out, "hold {lease} {} {}", asked.as_nanos(), ttl.as_millis())
            }
            Request::May(lease, vm) => write!(out, "may {lease} {vm}"),
            Request::End => write!(out, "end"),
        }
    }
}

impl FromStr for Request {
    type Err = String;

    fn from_str(line: &str) -> Result<Request, String> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().map_err(|_| format!("{word} is no number"));
        match words[..] {
            ["ready"] => Ok(Request::Ready),
            ["hold", lease, asked_ns, ttl_ms] => Ok(Request::Hold(Warrant {
                lease: number(lease)?,
                asked: Duration::from_nanos(number(asked_ns)?),
                ttl: Duration::from_millis(number(ttl_ms)?),
            })),
            ["may", lease, vm] => Ok(Request::May(number(lease)?, vm.to_owned())),
            ["end"] => Ok(Request::End),
            _ => Err("not understood".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_lies_before_the_end_of_the_lease() {
        let seconds = Duration::from_secs;
        assert_eq!(deadline(seconds(100), seconds(20)), seconds(116));
        assert_eq!(deadline(seconds(100), seconds(10)), seconds(107));
        // One that is shorter than the margins is over at once, and not in the past.
        assert_eq!(deadline(seconds(100), seconds(1)), seconds(100));
    }

    #[test]
    fn a_watchdog_resets_before_others_act() {
        let seconds = Duration::from_secs;
        // By the slowest clock that is allowed for they act 18 s after the renewal was asked for.
        let until = deadline(seconds(100), seconds(20));
        assert!(may_pet(until, seconds(105)));
        assert!(!may_pet(until, Duration::from_millis(105_001)));
        for (ttl_s, level) in [
            (10, Level::Guard),
            (17, Level::Guard),
            (18, Level::Watchdog),
            (20, Level::Watchdog),
            (120, Level::Watchdog),
        ] {
            assert_eq!(Level::with_watchdog(seconds(ttl_s)), level, "{ttl_s} s");
        }
    }

    #[test]
    fn a_line_is_what_it_was() {
        let (asked, ttl) = (Duration::from_nanos(7_000_000_123), Duration::from_secs(20));
        let hold = Request::Hold(Warrant { lease: u64::MAX, asked, ttl });
        for request in [Request::Ready, hold, Request::May(3, "vm".to_owned()), Request::End] {
            assert_eq!(request.to_string().parse(), Ok(request));
        }
        for bad in ["", "hold 1 2", "hold a 2 3", "may 3", "kill"] {
            assert!(bad.parse::<Request>().is_err(), "{bad}");
        }
    }
}
