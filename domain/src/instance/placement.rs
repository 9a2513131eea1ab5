//! Putting a VM on a host. The planner proposes; whether it fits is decided here.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Instance, Phase, Role, pair};
use crate::{
    Draft, State,
    host::{Capacity, Host, Reserve, Share},
    id::{HostId, InstanceId, PoolId, VmId},
    operation::{self, Class, Migration, Operation, Status, Step, StepName},
    setting::Key,
    vm::{Surroundings, Vm, is_failing_over, missing_label, missing_pool},
};

/// A proposal: this VM's body on that host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The VM.
    pub vm: VmId,
    /// The new body's id, minted by the proposer.
    pub instance: InstanceId,
    /// The host.
    pub host: HostId,
}

/// Places one VM, unless the state has moved on since the plan; the next plan sees why.
pub(super) fn place(draft: &mut Draft, row: Place) {
    let state = draft.state();
    let Some(vm) = state.vms.get(&row.vm).filter(|vm| !vm.deleting).cloned() else { return };
    let Some(host) = state.hosts.get(&row.host) else { return };
    let fits = host.takes_bodies()
        && may_be_on(state, &vm, host)
        && vm.spec.host.as_ref().is_none_or(|name| *name == host.name)
        && Capacity::of(&vm.spec).fits(host.allocatable(), state.used_on(host.id));
    let fits = fits && keeps_reserve(state, &vm, host);
    let taken = state.instance_of(vm.id).is_some() || state.body_on(vm.id, row.host).is_some();
    if !fits || taken || state.instances.contains_key(&row.instance) {
        return;
    }
    let fence = draft.revision();
    draft.put(Instance {
        id: row.instance,
        vm: vm.id,
        host: row.host,
        fence,
        phase: Phase::Reserved,
        role: Role::Active,
        spec: vm.spec.clone(),
        generation: vm.generation,
        booked: Capacity::of(&vm.spec),
        // One that comes from a lost host has had its reboots there.
        reboots: vm.reboots,
        starts: 0,
        ended: None,
        failure: None,
        guarded: vm.spec.failover.goes_elsewhere(),
        inherited: false,
        landing: None,
        revision: fence,
    });
    let pool = vm.pool.or_else(|| host_pool(draft, &vm, row.host));
    if vm.placement_failure.is_some() || pool != vm.pool {
        draft.put(Vm { placement_failure: None, pool, ..Vm::clone(&vm) });
    }
    operation::begin(draft, vm.id);
}

/// The pool in which a VM's disks will lie that is placed on this host.
fn host_pool(draft: &Draft, vm: &Vm, host: HostId) -> Option<PoolId> {
    draft.state().hosts.get(&host)?.pools.get(vm.spec.pool.as_ref()?).copied()
}

/// Whether there is room for a lost host's VMs afterwards. What comes from a lost host is what the room was
/// kept for.
fn keeps_reserve(state: &State, vm: &Vm, host: &Host) -> bool {
    if is_failing_over(state, vm) {
        return true;
    }
    let hosts = state.hosts.values();
    let shares = hosts.map(|host| Share::of(state, host, state.used_on(host.id)));
    let movable = vm.spec.failover.goes_elsewhere();
    Reserve::of(state, shares)
        .is_none_or(|reserve| reserve.allows(host.id, Capacity::of(&vm.spec), movable))
}

/// Whether the VM's rules, and those of others about it, let it be on the host.
fn may_be_on(state: &State, vm: &Vm, host: &Host) -> bool {
    missing_label(&vm.spec.placement, host).is_none()
        && missing_pool(vm, host).is_none()
        && Surroundings::of(state, vm, &[]).refusal(host).is_none()
}

/// Gives the VM's migration its target, unless the state has moved on since the plan.
pub(super) fn reserve(draft: &mut Draft, row: Place) {
    let state = draft.state();
    let Some((waits, migration)) = state.migration_of(row.vm) else { return };
    let Some(vm) = state.vms.get(&row.vm) else { return };
    let (Some(source), Some(host)) = (state.instance_of(row.vm), state.hosts.get(&row.host)) else {
        return;
    };
    let fits = host.takes_bodies()
        && state.is_known(source)
        && source.host != host.id
        && may_be_on(state, vm, host)
        && migration.to.is_none_or(|to| to == host.id)
        && source.booked.fits(host.allocatable(), state.used_on(host.id));
    let turn = waits.status == Status::Queued && state.has_slot(source.host, host.id);
    let taken = state.spare_of(row.vm).is_some() || state.instances.contains_key(&row.instance);
    if !fits || !turn || taken {
        return;
    }
    let (source, fence, wall_ms) = (source.clone(), draft.revision(), draft.wall_ms());
    let next = Operation {
        status: Status::Running,
        message: String::new(),
        migration: Some(Box::new(Migration { step: Step::Prepare, ..migration.clone() })),
        deadline_ms: pair::deadline_ms(draft, vm, &migration.terms),
        ..Operation::clone(waits)
    };
    draft.put(Instance {
        id: row.instance,
        host: row.host,
        role: Role::Incoming,
        fence,
        phase: Phase::Reserved,
        starts: 0,
        ended: None,
        failure: None,
        landing: None,
        ..Instance::clone(&source)
    });
    draft.put(next.at(StepName::Prepare, wall_ms));
}

impl State {
    /// The other bodies of migrations that are under way. What waits for a lost host takes no slot.
    pub fn migrating(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.spares().filter(|spare| {
            let other = self.instance_of(spare.vm);
            self.migration_of(spare.vm).is_some()
                && self.is_known(spare)
                && other.is_some_and(|other| self.is_known(other))
        })
    }

    /// Whether one more migration between these hosts may be under way.
    #[must_use]
    pub fn has_slot(&self, from: HostId, to: HostId) -> bool {
        let within = |count: usize, most: u64| (count as u64) < most;
        let per_host = self.setting(Key::MigrationsPerHost);
        let touches = |spare: &Instance, host: HostId| {
            spare.host == host || self.instance_of(spare.vm).is_some_and(|body| body.host == host)
        };
        let at = |host| self.migrating().filter(|spare| touches(spare, host)).count();
        within(self.migrating().count(), self.workers(Class::Migrations))
            && within(at(from), per_host)
            && within(at(to), per_host)
    }
}
