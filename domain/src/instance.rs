//! An instance: one body of a VM on one host.
//!
//! ```text
//!              prepared            started                 ended
//!  Reserved ─────────────▶ Ready ─────────▶ Running ─────────────────▶ Stopped
//!     ▲  │                                   │  ▲                      │  │
//!     │  │ cannot be made             paused │  │ resumed       started│  │
//!     │  ▼                                   ▼  │                      │  │
//!     │ Failed ◀── a permanent failure ──── Paused ◀───────────────────┘  │
//!     │                                                                   │
//!     └────────── gone though nobody released it ◀────────────────────────┘
//!
//!  released: the row is deleted.
//! ```
//!
//! Only what a driver saw moves a body from phase to phase; what is under way ("stopping") follows
//! from the phase and the VM's wish and is not stored. A body whose host lost its lease is
//! *unknown*: its row keeps the last phase seen, and [`State::is_known`] says what it is worth.
//!
//! A live migration is a second body. It is `Incoming` until one entry makes it the `Active` one;
//! what is then left of the other is `Retiring`. `pair` has the rules.
//!
//! ```text
//!  target   Reserved ──▶ Ready ──▶ Arrived ──┐ switch: becomes Active and Paused, is resumed
//!  source   Running ───────────▶ Yielded ────┘ switch: becomes Retiring, is released
//! ```
//!
//! A VM that is stopped moves in the same way, by a guest that never executes: its source stays
//! `Stopped` until it has yielded, and its target, once switched to, is `Arrived` until that guest is
//! ended.

mod next_action;
mod pair;
mod placement;
mod report;
mod way_back;

pub use next_action::Action;
pub(crate) use pair::{abandon, host_ended, retire, settle as settle_pair, unwind};
pub use placement::Place;
pub(crate) use report::decide;
pub use report::{Body, Ended, Failure, InstanceCommand, Life, Report};
pub(crate) use way_back::outcome;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Fence, Revision, State,
    event::Change,
    host::{self, Capacity},
    id::{HostId, InstanceId, VmId},
    limit,
    table::{Resource, Row, Table, shift},
    vm::VmSpec,
};

/// How far a body is, as last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The host is to make it; capacity is taken.
    Reserved,
    /// Made, never started.
    Ready,
    /// The guest executes.
    Running,
    /// The guest stands still in memory.
    Paused,
    /// The guest ended; the disks are there.
    Stopped,
    /// It cannot be made or started without a change.
    Failed,
    /// A guest has come here, whole and standing still; only the switch lets it go on.
    Arrived,
    /// The guest has left: it has not executed here since the copy of it was whole, and it cannot.
    Yielded,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Phase; 8] = [
        Phase::Reserved,
        Phase::Ready,
        Phase::Running,
        Phase::Paused,
        Phase::Stopped,
        Phase::Failed,
        Phase::Arrived,
        Phase::Yielded,
    ];

    /// Whether there are disks and no guest.
    #[must_use]
    pub const fn is_at_rest(self) -> bool {
        matches!(self, Phase::Ready | Phase::Stopped)
    }

    /// The phase after a driver saw `body`. Seeing is believing: every phase may follow every
    /// other, since anybody with a shell on the host can stop, start or remove a body.
    #[must_use]
    pub const fn next(self, body: Body) -> Phase {
        match (self, body) {
            (Phase::Failed, Body::Absent | Body::Ready | Body::Stopped(_)) => Phase::Failed,
            // What is left of a guest that was sent away are disks.
            (_, Body::Absent | Body::Stopped(Ended::Migrated)) => Phase::Reserved,
            // A driver cannot always tell a body that never ran from one that ended long ago.
            (Phase::Stopped, Body::Ready) | (_, Body::Stopped(_)) => Phase::Stopped,
            (_, Body::Ready | Body::Incoming) => Phase::Ready,
            (Phase::Reserved | Phase::Ready | Phase::Arrived | Phase::Failed, Body::Arrived) => {
                Phase::Arrived
            }
            // It was switched to, and has not been resumed yet.
            (_, Body::Arrived) => Phase::Paused,
            (_, Body::Running) => Phase::Running,
            (_, Body::Paused) => Phase::Paused,
        }
    }
}

/// What a body is to its VM, which has one active body at most, and at most one other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The VM's body.
    #[default]
    Active,
    /// It receives the guest of a migration.
    Incoming,
    /// It is to be released.
    Retiring,
}

/// Where a guest can be sent, as the receiving host's driver says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Landing {
    /// The address that the sending driver connects to.
    pub address: String,
    /// The body as it is to be there, in the driver's own words.
    pub definition: String,
}

/// One body of a VM on one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Its identity. Hypervisors know it by its VM's, of which a host has one body at most.
    pub id: InstanceId,
    /// The VM whose body it is.
    pub vm: VmId,
    /// The host it is on.
    pub host: HostId,
    /// What it is to the VM.
    #[serde(default)]
    pub role: Role,
    /// The revision of the entry that placed it here. Hosts refuse calls with a lower one.
    pub fence: Fence,
    /// How far it is.
    pub phase: Phase,
    /// What it was made from, or started with the last time.
    pub spec: Arc<VmSpec>,
    /// The generation of `spec`.
    pub generation: u32,
    /// What it takes of its host: enough for `spec` and for what the VM will start with next.
    pub booked: Capacity,
    /// Reboots it has had.
    #[serde(default)]
    pub reboots: u32,
    /// Starts it has had under this fence: a guest that starts and ends between two reports is seen
    /// by it.
    #[serde(default)]
    pub starts: u32,
    /// How it ended the last time.
    #[serde(default)]
    pub ended: Option<Ended>,
    /// The last failure, while it matters.
    #[serde(default)]
    pub failure: Option<String>,
    /// Whether its host's guard ends the guest when the host's lease runs out, whatever of it was
    /// started last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guarded: bool,
    /// Whether it is from an epoch before, and was not seen to run since: what has become of its VM
    /// meanwhile is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inherited: bool,
    /// Where it can be sent, while it is incoming and ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landing: Option<Landing>,
    /// The entry that changed it last.
    pub revision: Revision,
}

impl Resource for Instance {
    type Key = InstanceId;

    fn key(&self) -> InstanceId {
        self.id
    }
    fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }
    fn table(state: &State) -> &Table<Instance> {
        &state.instances
    }
    fn table_mut(state: &mut State) -> &mut Table<Instance> {
        &mut state.instances
    }
    fn change(row: Row<Instance>) -> Change {
        Change::Instance(row)
    }

    fn reindex(state: &mut State, old: Option<&Instance>, new: Option<&Instance>) {
        let part = |body: &Instance| (body.role, body.vm, body.id);
        let moved = old.map(part) != new.map(part);
        if let Some(old) = old.filter(|_| moved) {
            let index = by_vm(state, old.role);
            if index.get(&old.vm) == Some(&old.id) {
                index.remove(&old.vm);
            }
        }
        let host = |body: &Instance| (body.host, body.id);
        shift(&mut state.instances_by_host, old.map(host), new.map(host));
        if let Some(new) = new.filter(|_| moved) {
            by_vm(state, new.role).insert(new.vm, new.id);
        }
        let takes = |body: &Instance| (body.host, body.booked);
        tally(&mut state.used, old.map(takes), new.map(takes));
        let moves = |body: &&Instance| body.guarded;
        tally(&mut state.movable, old.filter(moves).map(takes), new.filter(moves).map(takes));
        // Whether a VM has a body at all has not changed otherwise.
        let Some(vm) = new.or(old).filter(|_| moved).map(|body| body.vm) else { return };
        let wants = state.vms.get(&vm).is_some_and(|vm| !vm.deleting);
        let unplaced = wants && !state.instances_by_vm.contains_key(&vm);
        let was = state.unplaced.contains(&vm);
        shift(&mut state.unplaced, was.then_some(vm), unplaced.then_some(vm));
    }
}

/// Keeps what bodies take of their hosts in all: `old` took so much, `new` takes so much. A sum of nothing is not there,
/// so that equal states are equal.
fn tally(
    sums: &mut imbl::OrdMap<HostId, Capacity>,
    old: Option<(HostId, Capacity)>,
    new: Option<(HostId, Capacity)>,
) {
    if old == new {
        return;
    }
    let mut change = |(host, by): (HostId, Capacity), how: fn(Capacity, Capacity) -> Capacity| {
        let sum = how(sums.get(&host).copied().unwrap_or_default(), by);
        if sum == Capacity::default() {
            sums.remove(&host);
        } else {
            sums.insert(host, sum);
        }
    };
    old.into_iter().for_each(|old| change(old, Capacity::minus));
    new.into_iter().for_each(|new| change(new, Capacity::plus));
}

fn by_vm(state: &mut State, role: Role) -> &mut imbl::OrdMap<VmId, InstanceId> {
    match role {
        Role::Active => &mut state.instances_by_vm,
        Role::Incoming | Role::Retiring => &mut state.spares_by_vm,
    }
}

impl State {
    /// The active body of `vm`, if it has one.
    #[must_use]
    pub fn instance_of(&self, vm: VmId) -> Option<&Arc<Instance>> {
        self.instances.get(self.instances_by_vm.get(&vm)?)
    }

    /// The other body of `vm`, if it has one: incoming or retiring.
    #[must_use]
    pub fn spare_of(&self, vm: VmId) -> Option<&Arc<Instance>> {
        self.instances.get(self.spares_by_vm.get(&vm)?)
    }

    /// Every body that is not its VM's active one.
    pub fn spares(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.spares_by_vm.values().filter_map(|id| self.instances.get(id))
    }

    /// The body of `vm` on `host`; there is one at most.
    #[must_use]
    pub fn body_on(&self, vm: VmId, host: HostId) -> Option<&Arc<Instance>> {
        let bodies = [self.instance_of(vm), self.spare_of(vm)];
        bodies.into_iter().flatten().find(|body| body.host == host)
    }

    /// The bodies on `host`.
    pub fn instances_on(&self, host: HostId) -> impl Iterator<Item = &Arc<Instance>> {
        use newtype_uuid::GenericUuid;
        let from = (host, InstanceId::from_untyped_uuid(uuid::Uuid::nil()));
        let upto = (host, InstanceId::from_untyped_uuid(uuid::Uuid::max()));
        self.instances_by_host.range(from..=upto).filter_map(|(_, id)| self.instances.get(id))
    }

    /// Whether a body from an epoch before may have a twin of which this epoch does not know: until every
    /// host of that epoch has been taken up, for long enough to be looked over, or is known to be off.
    #[must_use]
    pub fn may_have_a_twin(&self, body: &Instance) -> bool {
        body.inherited
            && self.hosts.values().any(|host| {
                let unheard = host.fence.epoch() < self.epoch;
                let new = self.now_ms < host.granted_ms + limit::LOOK_OVER_MS;
                if unheard { host.ended.is_none() } else { new }
            })
    }

    /// Whether what the row says of `body` can be relied on: its host holds its lease.
    #[must_use]
    pub fn is_known(&self, body: &Instance) -> bool {
        self.hosts.get(&body.host).is_some_and(|host| host.status == host::Status::Ready)
    }
}
