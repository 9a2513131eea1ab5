//! Queues and workers. A worker is a slot: how many operations of a class may be running in the cluster.
//! It holds no thread and no process; whose turn it is follows from the state alone.
//!
//! - **Ready.** What waits for a host (a VM that fits nowhere, a host that is not heard of) waits beside the
//!   queue and holds no worker, so it holds nobody up.
//! - **Turn.** The higher priority goes first, and of the same the older. A point of priority is worth
//!   [`limit::PRIORITY_POINT_MS`] of waiting, so that whoever waits for long goes first in the end.
//! - **Growth.** A crowd doubles the workers, up to the class's most. They are looked at again after
//!   [`limit::WORKERS_LOOK_MS`], and halved when nobody waits and half of them are idle: what grew
//!   for one wave is there for the next.
//! - **Parents** hold no worker, since their children need some.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Class, Kind, Operation, Status, lifecycle, step};
use crate::{
    Draft, Revision, State,
    id::{OperationId, VmId},
    instance::Instance,
    limit,
    rejected::{Reason, Rejected},
    vm::Vm,
};

/// The workers of a class that have grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grown {
    /// How many there are.
    pub workers: u64,
    /// When they are looked at again, lease time, milliseconds.
    pub look_ms: u64,
}

/// A place in a queue; the least is next. Lease time with its handicap, then age.
pub(crate) type Turn = (u64, Revision, OperationId);

impl Operation {
    /// Whether it is one of those that wait for a worker.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.status == Status::Queued && self.ready
    }

    /// Whether it holds a worker. What is being undone holds none: that is never waited for.
    pub(super) fn works(&self) -> bool {
        self.status == Status::Running && !self.is_parent() && !self.kind.definition().is_urgent
    }

    /// Its place in the queue.
    pub(super) fn turn(&self) -> Turn {
        let handicap = u64::from(limit::PRIORITY_MAX.saturating_sub(self.priority));
        (self.accepted_ms + handicap * limit::PRIORITY_POINT_MS, self.accepted, self.id)
    }
}

impl State {
    /// The operations of a class that wait for a worker, in the order of their turns.
    pub fn waiting(&self, class: Class) -> impl Iterator<Item = &Arc<Operation>> {
        let turns = self.operations_waiting.get(&class).into_iter().flatten();
        turns.filter_map(|(_, _, id)| self.operations.get(id))
    }

    /// How many wait for a worker of a class.
    #[must_use]
    pub fn waiting_count(&self, class: Class) -> usize {
        self.operations_waiting.get(&class).map_or(0, imbl::OrdSet::len)
    }

    /// How many workers of a class are busy.
    #[must_use]
    pub fn busy(&self, class: Class) -> u64 {
        self.operations_working.get(&class).copied().unwrap_or_default()
    }

    /// How many workers a class has. None at all stop it.
    #[must_use]
    pub fn workers(&self, class: Class) -> u64 {
        let least = self.setting(class.workers());
        let grown = self.grown.get(&class).map_or(0, |grown| grown.workers);
        if least == 0 { 0 } else { grown.min(self.setting(class.workers_max())).max(least) }
    }
}

/// Notes in the indexes that an operation waits, or works.
pub(super) fn enter(state: &mut State, operation: &Operation) {
    if operation.waits() {
        state.operations_waiting.entry(operation.class).or_default().insert(operation.turn());
    }
    if operation.works() {
        *state.operations_working.entry(operation.class).or_default() += 1;
    }
}

/// Takes the same back. What is empty is not there, so that equal states are equal.
pub(super) fn leave(state: &mut State, operation: &Operation) {
    let class = operation.class;
    if operation.waits()
        && let Some(turns) = state.operations_waiting.get_mut(&class)
    {
        turns.remove(&operation.turn());
        if turns.is_empty() {
            state.operations_waiting.remove(&class);
        }
    }
    if operation.works() {
        let left = state.busy(class).saturating_sub(1);
        if left == 0 {
            state.operations_working.remove(&class);
        } else {
            state.operations_working.insert(class, left);
        }
    }
}

/// Refuses what a full queue cannot take.
pub(super) fn room(state: &State, class: Class) -> Result<(), Rejected> {
    let waiting = state.waiting_count(class) as u64;
    if waiting < state.setting(class.queued_max()) {
        return Ok(());
    }
    let class = class.as_str();
    let message =
        format!("{waiting} operations of {class} wait for their turn; ask again in a minute");
    Err(Rejected::new(Reason::QueueFull, message))
}

/// Hands workers out, as the last step of every entry: to whatever made one free, or ready.
pub(crate) fn advance(draft: &mut Draft) {
    if draft.state().operations_waiting.is_empty() {
        return;
    }
    for class in Class::ALL {
        grow(draft, class);
        // A migration takes its worker with its target: the planner knows who fits where.
        if class != Class::Migrations {
            admit(draft, class);
        }
    }
}

fn grow(draft: &mut Draft, class: Class) {
    let state = draft.state();
    let (now_ms, workers) = (state.now_ms, state.workers(class));
    let most = state.setting(class.workers_max());
    let Some(next) = state.waiting(class).next() else { return };
    // Who waits for long behind work that does not end is helped too, but slowly.
    let since_ms =
        state.grown.get(&class).map_or(0, |grown| grown.look_ms - limit::WORKERS_LOOK_MS);
    let since_ms = since_ms.max(next.accepted_ms);
    let slow = now_ms.saturating_sub(since_ms) >= limit::TURN_PATIENCE_MS;
    let crowded = state.waiting_count(class) > class.crowd();
    let late = slow && state.busy(class) >= workers;
    if workers > 0 && workers < most && (crowded || late) {
        let workers = (workers * 2).min(most);
        draft.set_grown(class, Some(Grown { workers, look_ms: now_ms + limit::WORKERS_LOOK_MS }));
    }
}

fn admit(draft: &mut Draft, class: Class) {
    for _ in 0..limit::BATCH_MAX {
        let state = draft.state();
        if state.busy(class) >= state.workers(class) {
            return;
        }
        let Some(next) = state.waiting(class).next().map(|next| Operation::clone(next)) else {
            return;
        };
        let deadline_ms = state.now_ms + state.setting(next.kind.definition().deadline);
        let next = Operation { status: Status::Running, deadline_ms, ..next };
        let next = step::noted(state, next, draft.wall_ms());
        let stops = next.vm().filter(|_| next.kind == Kind::Stop);
        let stops = stops.and_then(|vm| state.vms.get(&vm)).cloned();
        let now_ms = state.now_ms;
        draft.put(next);
        if let Some(vm) = stops {
            draft.put(Vm { stopping_since_ms: now_ms, ..Vm::clone(&vm) });
        }
    }
}

/// Looks at workers that have grown; called as time passes.
pub(crate) fn look(draft: &mut Draft) {
    let now_ms = draft.state().now_ms;
    let due = draft.state().grown.iter().filter(|(_, grown)| grown.look_ms <= now_ms);
    for (class, grown) in due.map(|(class, grown)| (*class, *grown)).collect::<Vec<_>>() {
        let state = draft.state();
        let idle = state.waiting_count(class) == 0 && state.busy(class) * 2 <= grown.workers;
        let workers = if idle { grown.workers / 2 } else { grown.workers };
        let grown = Grown { workers, look_ms: now_ms + limit::WORKERS_LOOK_MS };
        let least = state.setting(class.workers());
        draft.set_grown(class, (workers > least).then_some(grown));
    }
}

/// A host has a body of the VM and is heard of: its operation can be worked on. Otherwise it gives its
/// worker back until it can.
pub(crate) fn begin(draft: &mut Draft, vm: VmId) {
    let state = draft.state();
    let Some(operation) = lifecycle::current(draft, vm) else { return };
    if operation.kind == Kind::Migrate {
        return;
    }
    let known = |body: Option<&Arc<Instance>>| body.is_some_and(|body| state.is_known(body));
    // Of what is deleted, whatever is left is to go.
    let spare = operation.kind == Kind::Delete && known(state.spare_of(vm));
    let ready = spare || known(state.instance_of(vm));
    let mut next = Operation { ready, ..operation.clone() };
    if next.status == Status::Running && !ready {
        next.status = Status::Queued;
    }
    if next.waits() && next.kind.definition().is_urgent {
        next.status = Status::Running;
    }
    let next = step::noted(state, next, draft.wall_ms());
    if next != operation {
        draft.put(next);
    }
}
