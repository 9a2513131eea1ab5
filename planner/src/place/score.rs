//! Which of the possible hosts is best.

use domain::vm::Scoring;

use super::{Candidate, Want};

/// How good a host is for what is wanted; more is better.
pub(super) fn score(candidate: &Candidate, want: &Want) -> u64 {
    match want.vm.spec.placement.scoring {
        Scoring::Spread => spread(candidate),
        Scoring::Pack => WHOLE - spread(candidate),
    }
}

/// A whole, in parts per million.
const WHOLE: u64 = 1_000_000;

/// Spreads: the free share of the scarcer of CPU and memory, in parts per million. A host's loss
/// then costs the fewest VMs.
pub(super) fn spread(candidate: &Candidate) -> u64 {
    let whole = candidate.host.allocatable();
    let free = whole.minus(candidate.used);
    let share = |free: u64, whole: u64| free.saturating_mul(WHOLE) / whole.max(1);
    share(free.cpu_millicores, whole.cpu_millicores).min(share(free.memory_mib, whole.memory_mib))
}
