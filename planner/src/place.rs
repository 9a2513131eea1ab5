//! Placement: which host takes a VM.
//!
//! Filters say where a VM cannot go and why; scores rank what is left. Both see a running tally, so
//! that one plan of many VMs does not fill a host twice. The same state gives the same plan.

mod failover;
mod filter;
mod score;
mod target;
mod verdict;

pub use failover::failover;
pub use target::{Fate, evacuation, leavers, targets};
pub use verdict::{Verdict, verdicts};

use std::{
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
};

use domain::{
    State,
    host::{Capacity, Host, Reserve, Share},
    id::{HostId, VmId},
    name::Name,
    vm::{Surroundings, Vm, is_failing_over},
};

/// Where VMs should go, and why the others cannot go anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Hosts for VMs.
    pub placed: Vec<(VmId, HostId)>,
    /// VMs that fit nowhere, each with the reason in a sentence.
    pub unplaceable: BTreeMap<VmId, Arc<str>>,
}

/// A host and what the plan so far has put on it.
struct Candidate<'a> {
    host: &'a Host,
    used: Capacity,
    /// What of it the plan has put there that may be made anew.
    movable: Capacity,
}

impl<'a> Candidate<'a> {
    fn of(state: &State, host: &'a Host) -> Candidate<'a> {
        Candidate { host, used: state.used_on(host.id), movable: Capacity::default() }
    }

    fn take(&mut self, want: &Want) {
        self.used = self.used.plus(want.booked);
        if want.movable {
            self.movable = self.movable.plus(want.booked);
        }
    }

    fn share(&self, state: &State) -> Share {
        let share = Share::of(state, self.host, self.used);
        Share { movable: share.movable.plus(self.movable), ..share }
    }
}

/// What is to be placed.
struct Want<'a> {
    booked: Capacity,
    /// The one host it may go to.
    only: Option<&'a Name>,
    /// The host it must leave.
    leaves: Option<HostId>,
    vm: &'a Vm,
    surroundings: Surroundings,
    /// Whether it may be made anew when its host is lost.
    movable: bool,
    /// The room that is kept for a lost host, when it is.
    reserve: Option<Reserve>,
}

impl<'a> Want<'a> {
    /// What a VM wants when a plan has placed others already.
    fn of(state: &State, vm: &'a Vm, planned: &[(VmId, HostId)]) -> Want<'a> {
        Want {
            booked: Capacity::of(&vm.spec),
            only: vm.spec.host.as_ref(),
            leaves: None,
            vm,
            surroundings: Surroundings::of(state, vm, planned),
            movable: vm.spec.failover.goes_elsewhere(),
            reserve: None,
        }
    }

    /// The same, for a VM that comes anew: it leaves room for a lost host's.
    fn beside(self, state: &State, vm: &Vm, hosts: &[Candidate]) -> Want<'a> {
        if is_failing_over(state, vm) {
            return self;
        }
        let reserve = Reserve::of(state, hosts.iter().map(|host| host.share(state)));
        Want { reserve, ..self }
    }

    /// Whether it fits wherever another of its size does.
    fn is_ordinary(&self) -> bool {
        let spec = &self.vm.spec;
        spec.placement.is_default()
            && spec.pool.is_none()
            && self.surroundings.is_empty()
            && self.reserve.is_none()
    }
}

/// What decides where a VM fits: two VMs that want the same fit on the same hosts.
type Same<'a> = (Capacity, Option<&'a Name>);

/// Plans for the VMs that have no body, until `limit` are placed. Those that fit nowhere hold
/// nobody up.
#[must_use]
pub fn place(state: &State, limit: usize) -> Placement {
    let mut hosts: Vec<Candidate> =
        state.hosts.values().map(|host| Candidate::of(state, host)).collect();
    let mut placement = Placement::default();
    // The emptiest host is on top; an entry whose score is out of date is put back with the new one.
    let mut ranking: BinaryHeap<(u64, std::cmp::Reverse<usize>)> = hosts
        .iter()
        .enumerate()
        .map(|(index, candidate)| (score::spread(candidate), std::cmp::Reverse(index)))
        .collect();
    // The plan only fills hosts, so what fits nowhere once does not fit later in it.
    let mut hopeless: BTreeMap<Same, Arc<str>> = BTreeMap::new();
    for vm in state.unplaced() {
        if placement.placed.len() >= limit {
            break;
        }
        let want = Want::of(state, vm, &placement.placed).beside(state, vm, &hosts);
        let (same, ordinary) = ((want.booked, want.only), want.is_ordinary());
        if ordinary && let Some(reason) = hopeless.get(&same) {
            placement.unplaceable.insert(vm.id, reason.clone());
            continue;
        }
        let found = match ordinary {
            true => best(&hosts, &mut ranking, &want),
            false => target::best(&hosts, &want, |_| true),
        };
        match found {
            Some(index) => {
                let candidate = &mut hosts[index];
                candidate.take(&want);
                placement.placed.push((vm.id, candidate.host.id));
                ranking.push((score::spread(candidate), std::cmp::Reverse(index)));
            }
            None => {
                let reason: Arc<str> = explain(&hosts, &want).into();
                placement.unplaceable.insert(vm.id, reason.clone());
                if ordinary {
                    hopeless.insert(same, reason);
                }
            }
        }
    }
    placement
}

/// The best host that passes every filter; it is taken off the ranking.
fn best(
    hosts: &[Candidate],
    ranking: &mut BinaryHeap<(u64, std::cmp::Reverse<usize>)>,
    want: &Want,
) -> Option<usize> {
    let mut passed_over = Vec::new();
    let mut found = None;
    while let Some(entry) = ranking.pop() {
        let index = entry.1.0;
        // The plan has put something there since; the newer entry stands.
        if entry.0 != score::spread(&hosts[index]) {
            continue;
        }
        if filter::refusal(&hosts[index], want).is_none() {
            found = Some(index);
            break;
        }
        passed_over.push(entry);
    }
    ranking.extend(passed_over);
    found
}

/// Why no host takes the VM: how many hosts each filter refused.
fn explain(hosts: &[Candidate], want: &Want) -> String {
    if hosts.is_empty() {
        return "the cluster has no hosts yet".to_owned();
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for refusal in hosts.iter().filter_map(|host| filter::refusal(host, want)) {
        *counts.entry(refusal).or_default() += 1;
    }
    // Each host may have a reason of its own, and a sentence is to be read.
    const REASONS_MAX: usize = 8;
    let others: usize = counts.values().skip(REASONS_MAX).sum();
    let told = counts.into_iter().take(REASONS_MAX);
    let mut parts: Vec<String> =
        told.map(|(refusal, count)| format!("{count} {refusal}")).collect();
    if others > 0 {
        parts.push(format!("{others} for other reasons"));
    }
    format!("no host of {}: {}", hosts.len(), parts.join(", "))
}
