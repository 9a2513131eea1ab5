//! Where a VM cannot go.

use domain::{
    host::{Schedule, Status},
    vm::{missing_label, missing_pool},
};

use super::{Candidate, Want};

type Filter = fn(&Candidate, &Want) -> Option<String>;

const FILTERS: &[Filter] =
    &[ready, open, elsewhere, pinned, labels, pool, neighbours, capacity, reserve];

/// The first reason why `candidate` cannot take what is wanted, worded to follow a count of hosts.
pub(super) fn refusal(candidate: &Candidate, want: &Want) -> Option<String> {
    refusals(candidate, want).next()
}

/// All of them.
pub(super) fn refusals(candidate: &Candidate, want: &Want) -> impl Iterator<Item = String> {
    FILTERS.iter().filter_map(|filter| filter(candidate, want))
}

fn ready(candidate: &Candidate, _: &Want) -> Option<String> {
    (candidate.host.status != Status::Ready).then(|| "not ready".to_owned())
}

fn open(candidate: &Candidate, _: &Want) -> Option<String> {
    match candidate.host.schedule {
        Schedule::Open => None,
        Schedule::Cordoned => Some("cordoned".to_owned()),
        Schedule::Draining => Some("being drained".to_owned()),
    }
}

fn elsewhere(candidate: &Candidate, want: &Want) -> Option<String> {
    (want.leaves == Some(candidate.host.id)).then(|| "the host it is on".to_owned())
}

fn pinned(candidate: &Candidate, want: &Want) -> Option<String> {
    let elsewhere = want.only.is_some_and(|name| *name != candidate.host.name);
    elsewhere.then(|| "not the one host it may go to".to_owned())
}

fn labels(candidate: &Candidate, want: &Want) -> Option<String> {
    missing_label(&want.vm.spec.placement, candidate.host)
}

fn pool(candidate: &Candidate, want: &Want) -> Option<String> {
    missing_pool(want.vm, candidate.host)
}

fn neighbours(candidate: &Candidate, want: &Want) -> Option<String> {
    want.surroundings.refusal(candidate.host)
}

fn capacity(candidate: &Candidate, want: &Want) -> Option<String> {
    want.booked
        .shortage(candidate.host.allocatable(), candidate.used)
        .map(|short| format!("without enough {short}"))
}

fn reserve(candidate: &Candidate, want: &Want) -> Option<String> {
    let reserve = want.reserve.as_ref()?;
    let allowed = reserve.allows(candidate.host.id, want.booked, want.movable);
    (!allowed).then(|| "keeping room for a lost host".to_owned())
}
