//! A VM: the promise made to a user. What runs is an [`Instance`](crate::instance::Instance).
//!
//! What a user sees as "the VM's state" is the [`Phase`], derived from the promise and its body and
//! never stored, so it cannot disagree with them.

mod command;
mod failover;
mod leave;
mod mutability;
mod phase;
mod pool;
mod spec;
mod surroundings;
mod transition;

pub use command::{SpecPatch, VmCommand};
pub(crate) use failover::relocate;
pub use failover::{awaits_failover, is_failing_over, why_unknown};
pub use leave::may_leave;
pub(crate) use leave::{can_leave, evacuate, send_home};
pub use mutability::{FIELDS, Takes};
pub use phase::Phase;
pub use pool::missing_pool;
pub(crate) use pool::{clear as clear_pool, clear_all as clear_pools, note_cleared, note_made};
pub use spec::{Disk, Failover, Network, Nic, RunPolicy, VmSpec, default_priority};
pub use surroundings::{PlacementRules, Scoring, Surroundings, missing_label};
pub(crate) use transition::{body_ended, create, decide, delete, forget_if_gone};

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Revision, State,
    event::Change,
    id::{HostId, ImageId, OperationId, PoolId, VmId},
    name::Name,
    table::{Resource, Row, Table, shift},
};

/// What the body is wanted to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// The guest executes.
    Running,
    /// The guest stands still in memory.
    Paused,
    /// The guest is asked to shut down, and after the grace period its power is cut.
    Stopped,
    /// The guest's power is cut at once.
    Killed,
}

/// How often a crashing guest was restarted, and when it may be again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Restarts {
    /// Restarts in a row.
    pub count: u32,
    /// Lease time before which the guest is not started again, milliseconds.
    pub not_before_ms: u64,
    /// Lease time of the last start, milliseconds.
    pub started_ms: u64,
}

impl Restarts {
    /// As if the guest had never crashed.
    #[must_use]
    pub(crate) const fn forgiven(self) -> Restarts {
        Restarts { count: 0, not_before_ms: 0, ..self }
    }
}

/// A VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vm {
    /// Its identity, for ever.
    pub id: VmId,
    /// The project it belongs to.
    pub project: Name,
    /// Its name, unique in its project.
    pub name: Name,
    /// What the user wants it to be like. Its body and earlier versions of both share it.
    pub spec: Arc<VmSpec>,
    /// Counts the changes of `spec`, so that a body knows whether it runs the newest.
    pub generation: u32,
    /// The image's identity, resolved when the VM was created.
    pub image: ImageId,
    /// What the body is wanted to be.
    pub desired: Desired,
    /// Lease time since when it is wanted, milliseconds; a graceful stop is forced after a grace.
    pub desired_since_ms: u64,
    /// Counts the reboots asked for; a body reports how many it has had.
    pub reboots: u32,
    /// On its way out; only [`Phase::Deleting`] follows.
    pub deleting: bool,
    /// Restarts of a crashing guest.
    #[serde(default)]
    pub restarts: Restarts,
    /// The operation under way.
    #[serde(default)]
    pub operation: Option<OperationId>,
    /// Lease time at which its last migration failed, milliseconds; 0 when none did.
    #[serde(default)]
    pub migration_failed_ms: u64,
    /// Lease time at which its stop got a worker, milliseconds: a guest has its whole grace period.
    #[serde(default)]
    pub stopping_since_ms: u64,
    /// The host that it left because that was drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<HostId>,
    /// Until when, lease time, milliseconds, a guest that goes down does so for a stop that was cancelled;
    /// 0 when none was.
    #[serde(default)]
    pub stop_recalled_until_ms: u64,
    /// The pool that its disks lie in, from when it was placed first until they are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolId>,
    /// Whether they were made there. From then on they are looked for and never made anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disks_made: bool,
    /// Why no host takes it, when none does.
    #[serde(default)]
    pub placement_failure: Option<String>,
    /// Wall time of creation, Unix milliseconds.
    pub created_wall_ms: u64,
    /// The entry that changed it last; its etag.
    pub revision: Revision,
}

impl Resource for Vm {
    type Key = VmId;

    fn key(&self) -> VmId {
        self.id
    }
    fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }
    fn table(state: &State) -> &Table<Vm> {
        &state.vms
    }
    fn table_mut(state: &mut State) -> &mut Table<Vm> {
        &mut state.vms
    }
    fn change(row: Row<Vm>) -> Change {
        Change::Vm(row)
    }

    fn reindex(state: &mut State, old: Option<&Vm>, new: Option<&Vm>) {
        fn name(vm: &Vm) -> (&Name, &Name) {
            (&vm.project, &vm.name)
        }
        if old.map(name) != new.map(name) {
            let key = |vm: &Vm| (vm.project.clone(), vm.name.clone());
            if let Some(old) = old {
                state.vm_names.remove(&key(old));
            }
            if let Some(new) = new {
                state.vm_names.insert(key(new), new.id);
            }
        }
        let image = |vm: &Vm| (vm.image, vm.id);
        shift(&mut state.vms_by_image, old.map(image), new.map(image));
        let near = |vm: &&Vm| vm.spec.placement.has_neighbours();
        let near = |vm: Option<&Vm>| vm.filter(near).map(|vm| (vm.project.clone(), vm.id));
        shift(&mut state.neighbours, near(old), near(new));
        // Whether it has a body is for bodies to note.
        if old.map(|vm| vm.deleting) == new.map(|vm| vm.deleting) {
            return;
        }
        let unplaced = new.filter(|vm| state.instance_of(vm.id).is_none() && !vm.deleting);
        let unplaced = unplaced.map(|vm| vm.id);
        let was = old.or(new).map(|vm| vm.id).filter(|id| state.unplaced.contains(id));
        shift(&mut state.unplaced, was, unplaced);
    }
}

impl State {
    /// The VM called `name` in `project`.
    #[must_use]
    pub fn vm_named(&self, project: &Name, name: &Name) -> Option<&Arc<Vm>> {
        self.vms.get(self.vm_names.get(&(project.clone(), name.clone()))?)
    }
}
