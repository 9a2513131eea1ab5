//! Which of the possible hosts is best.

use super::Candidate;

/// Spreads: the free share of the scarcer of CPU and memory, in parts per million. A host's loss
/// then costs the fewest VMs.
pub(super) fn spread(candidate: &Candidate) -> u64 {
    let whole = candidate.host.allocatable();
    let free = whole.minus(candidate.used);
    let share = |free: u64, whole: u64| free.saturating_mul(1_000_000) / whole.max(1);
    share(free.cpu_millicores, whole.cpu_millicores).min(share(free.memory_mib, whole.memory_mib))
}
