//! Where guests that are to leave their hosts go.

use std::sync::Arc;

use domain::{
    State,
    host::Schedule,
    id::{HostId, VmId},
    limit,
    operation::Class,
    rejected::Reason,
    vm::may_leave,
};

use super::{Candidate, Placement, Want, explain, filter, score};

/// Plans targets for the migrations that wait, in the order of their turns, as many as there are
/// workers free. Those that no host can take hold nobody up.
#[must_use]
pub fn targets(state: &State) -> Placement {
    let mut hosts: Vec<Candidate> =
        state.hosts.values().map(|host| Candidate::of(state, host)).collect();
    let mut placement = Placement::default();
    let under_way = state.migrating().count() as u64;
    let free = state.workers(Class::Migrations).saturating_sub(under_way);
    for operation in state.waiting(Class::Migrations) {
        if placement.placed.len() as u64 >= free {
            break;
        }
        let (Some(vm), Some(migration)) = (operation.vm(), operation.migration.as_ref()) else {
            continue;
        };
        let Some(body) = state.instance_of(vm) else { continue };
        let named = migration.to.map(|to| state.hosts.get(&to));
        if named == Some(None) {
            placement.unplaceable.insert(vm, "the host it is to go to is gone".into());
            continue;
        }
        if !state.is_known(body) {
            placement.unplaceable.insert(vm, "its host is not heard of".into());
            continue;
        }
        let only = named.flatten().map(|host| &host.name);
        let Some(row) = state.vms.get(&vm) else { continue };
        let want = Want {
            booked: body.booked,
            only,
            leaves: Some(body.host),
            ..Want::of(state, row, &placement.placed)
        };
        let fits = |candidate: &&Candidate| filter::refusal(candidate, &want).is_none();
        if !hosts.iter().any(|host| fits(&host)) {
            let reason: Arc<str> = explain(&hosts, &want).into();
            placement.unplaceable.insert(vm, reason);
            continue;
        }
        // A host that is busy with others is waited for.
        let free = |host: &Candidate| state.has_slot(body.host, host.host.id);
        if let Some(best) = best(&hosts, &want, free) {
            hosts[best].take(&want);
            placement.placed.push((vm, hosts[best].host.id));
        }
    }
    placement
}

/// What becomes of a VM whose host is drained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is on its way already.
    Leaving,
    /// Something else is done with it first.
    Waits,
    /// It would go there, as things are.
    Leaves(HostId),
    /// It stays, for this reason.
    Stays(String),
}

/// What becomes of the VMs on `host` when it is drained: the same plan that is carried out.
#[must_use]
pub fn evacuation(state: &State, host: HostId) -> Vec<(VmId, Fate)> {
    let mut hosts: Vec<Candidate> =
        state.hosts.values().map(|host| Candidate::of(state, host)).collect();
    let mut fates = Vec::new();
    let mut planned = Vec::new();
    for body in state.instances_on(host) {
        let Some(vm) = state.vms.get(&body.vm) else { continue };
        let leaving = state.migration_of(vm.id).is_some()
            || state.instance_of(vm.id).is_none_or(|active| active.host != host);
        let fate = match may_leave(state, vm) {
            _ if leaving => Fate::Leaving,
            Err(refused) if refused.reason == Reason::VmBusy => Fate::Waits,
            Err(refused) => Fate::Stays(refused.message),
            Ok(()) => {
                let want = Want {
                    booked: body.booked,
                    only: None,
                    leaves: Some(host),
                    ..Want::of(state, vm, &planned)
                };
                match best(&hosts, &want, |_| true) {
                    Some(best) => {
                        hosts[best].take(&want);
                        planned.push((vm.id, hosts[best].host.id));
                        Fate::Leaves(hosts[best].host.id)
                    }
                    None => Fate::Stays(explain(&hosts, &want)),
                }
            }
        };
        fates.push((vm.id, fate));
    }
    fates
}

/// The guests that should begin now to leave hosts that are being drained, at most `limit`. One whose
/// last attempt failed waits for a while.
#[must_use]
pub fn leavers(state: &State, limit: usize) -> Vec<VmId> {
    let draining = state.hosts.values().filter(|host| host.schedule == Schedule::Draining);
    let fates = draining.flat_map(|host| evacuation(state, host.id));
    let rested = |vm: &VmId| {
        state.vms.get(vm).is_some_and(|vm| {
            vm.migration_failed_ms == 0
                || state.now_ms >= vm.migration_failed_ms + limit::EVACUATION_PAUSE_MS
        })
    };
    fates
        .filter(|(_, fate)| matches!(fate, Fate::Leaves(_)))
        .map(|(vm, _)| vm)
        .filter(rested)
        .take(limit)
        .collect()
}

/// The best host that can take what is wanted, of those that `also` lets through.
pub(super) fn best(
    hosts: &[Candidate],
    want: &Want,
    also: impl Fn(&Candidate) -> bool,
) -> Option<usize> {
    let fits = hosts.iter().enumerate().filter(|(_, host)| filter::refusal(host, want).is_none());
    fits.filter(|(_, host)| also(host))
        .max_by_key(|(index, host)| (score::score(host, want), std::cmp::Reverse(*index)))
        .map(|(index, _)| index)
}
