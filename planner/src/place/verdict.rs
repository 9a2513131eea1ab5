//! What every host is to one VM: the filters and the score of placement, one by one, for people.

use domain::{
    State,
    id::HostId,
    vm::{Scoring, Vm},
};

use super::{Candidate, Want, filter, score};

/// What a host is to a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The host.
    pub host: HostId,
    /// Whether the VM's body is on it.
    pub here: bool,
    /// Every reason why it cannot take the VM; none when it can.
    pub refusals: Vec<String>,
    /// The free share of the scarcer of its CPU and memory, parts per million. Of those that can take the
    /// VM the one with the most is chosen, or with the least if it is to be packed.
    pub free_ppm: u64,
}

/// What each host would be to the VM if it were placed now, in the order in which they would be chosen:
/// first those that can take it. What the VM takes of the host that it is on counts as free there.
#[must_use]
pub fn verdicts(state: &State, vm: &Vm) -> Vec<Verdict> {
    let body = state.instance_of(vm.id);
    let all: Vec<_> = state.hosts.values().map(|host| Candidate::of(state, host)).collect();
    let want = Want::of(state, vm, &[]);
    // What is somewhere has its place already.
    let want = if body.is_some() { want } else { want.beside(state, vm, &all) };
    let mut verdicts: Vec<(usize, Verdict)> = state
        .hosts
        .values()
        .enumerate()
        .map(|(index, host)| {
            let here = body.filter(|body| body.host == host.id);
            let used = state.used_on(host.id);
            let used = here.map_or(used, |body| used.minus(body.booked));
            let candidate = Candidate { used, ..Candidate::of(state, host) };
            let verdict = Verdict {
                host: host.id,
                here: here.is_some(),
                refusals: filter::refusals(&candidate, &want).collect(),
                free_ppm: score::spread(&candidate),
            };
            (index, verdict)
        })
        .collect();
    let order = |verdict: &Verdict| match want.vm.spec.placement.scoring {
        Scoring::Spread => u64::MAX - verdict.free_ppm,
        Scoring::Pack => verdict.free_ppm,
    };
    verdicts.sort_by_key(|(index, verdict)| (verdict.refusals.len(), order(verdict), *index));
    verdicts.into_iter().map(|(_, verdict)| verdict).collect()
}
