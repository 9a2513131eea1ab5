//! The wall clock: for people, certificates and expiry of credentials, never for leases.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix milliseconds.
#[must_use]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
