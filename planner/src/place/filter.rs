//! Where a VM cannot go.

use domain::{
    host::{Capacity, Status},
    vm::Vm,
};

use super::Candidate;

type Filter = fn(&Candidate, &Vm) -> Option<String>;

const FILTERS: &[Filter] = &[ready, pinned, capacity];

/// The first reason why `candidate` cannot take `vm`, worded to follow a count of hosts.
pub(super) fn refusal(candidate: &Candidate, vm: &Vm) -> Option<String> {
    FILTERS.iter().find_map(|filter| filter(candidate, vm))
}

fn ready(candidate: &Candidate, _: &Vm) -> Option<String> {
    (candidate.host.status != Status::Ready).then(|| "not ready".to_owned())
}

fn pinned(candidate: &Candidate, vm: &Vm) -> Option<String> {
    let elsewhere = vm.spec.host.as_ref().is_some_and(|name| *name != candidate.host.name);
    elsewhere.then(|| "not the host it is pinned to".to_owned())
}

fn capacity(candidate: &Candidate, vm: &Vm) -> Option<String> {
    Capacity::of(&vm.spec)
        .shortage(candidate.host.allocatable(), candidate.used)
        .map(|short| format!("without enough {short}"))
}
