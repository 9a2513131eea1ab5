//! A long task somebody may wait for: what was asked, how far it is, how it ended.
//!
//! ```text
//!  Queued ──▶ Running ──▶ Done
//!    │           │  └────▶ Stuck      its cause needs a person, or its deadline passed
//!    │           ▼
//!    └─────▶ Unwinding ──▶ RolledBack
//! ```
//!
//! A migration that is to be undone when its guest has left already goes on: Unwinding ──▶ Running.
//! Cancel is a request, not a state: it turns the VM's wish back to what it was.

mod goal;
mod lifecycle;
mod migration;

pub use goal::Kind;
pub(crate) use lifecycle::{begin, decide, end, expire, open, overtake, settle, vm_gone, withdraw};
pub use migration::{CopyPolicy, Migration, Progress, Step};

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Revision, State,
    event::Change,
    id::{OperationId, VmId},
    name::Name,
    principal::Principal,
    table::{Resource, Row, Table},
    vm::Desired,
};

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted; no host works on it yet.
    Queued,
    /// A host works on it.
    Running,
    /// It was cancelled or overtaken and is being undone.
    Unwinding,
    /// What was asked is so.
    Done,
    /// It was undone.
    RolledBack,
    /// It cannot go on by itself.
    Stuck,
}

impl Status {
    /// Every status.
    pub const ALL: [Status; 6] = [
        Status::Queued,
        Status::Running,
        Status::Unwinding,
        Status::Done,
        Status::RolledBack,
        Status::Stuck,
    ];

    /// Whether nothing follows.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Status::Queued | Status::Running | Status::Unwinding => false,
            Status::Done | Status::RolledBack | Status::Stuck => true,
        }
    }

    /// Whether `next` may follow: the diagram above, and no other way.
    #[must_use]
    pub const fn may_become(self, next: Status) -> bool {
        match (self, next) {
            (Status::Queued, Status::Queued) => false,
            (Status::Queued, _)
            | (Status::Running, Status::Unwinding | Status::Done | Status::Stuck)
            | (Status::Running | Status::Unwinding, Status::RolledBack)
            // A guest that had left already when its migration was to be undone.
            | (Status::Unwinding, Status::Running | Status::Stuck) => true,
            _ => false,
        }
    }

    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Running => "running",
            Status::Unwinding => "unwinding",
            Status::Done => "done",
            Status::RolledBack => "rolled_back",
            Status::Stuck => "stuck",
        }
    }
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Its identity.
    pub id: OperationId,
    /// What was asked.
    pub kind: Kind,
    /// Of which VM.
    pub vm: VmId,
    /// The VM's project.
    pub project: Name,
    /// The VM's name, which outlives the VM here.
    pub vm_name: Name,
    /// How far it is.
    pub status: Status,
    /// What was wanted of the VM before; cancel restores it.
    pub before: Option<Desired>,
    /// The VM's reboot count that fulfils a reboot.
    #[serde(default)]
    pub reboots: u32,
    /// Who asked.
    pub author: Principal,
    /// How it ended, or what holds it up.
    #[serde(default)]
    pub message: String,
    /// Wall time of acceptance, Unix milliseconds.
    pub created_wall_ms: u64,
    /// Wall time of the end, Unix milliseconds; 0 before.
    #[serde(default)]
    pub ended_wall_ms: u64,
    /// Lease time at which it becomes stuck, or is undone, milliseconds.
    pub deadline_ms: u64,
    /// The entry that accepted it.
    #[serde(default)]
    pub accepted: Revision,
    /// Of those that wait for the same, the one with the higher priority goes first.
    #[serde(default)]
    pub priority: u8,
    /// What only a migration knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<Box<Migration>>,
    /// The entry that changed it last.
    pub revision: Revision,
}

/// What may be asked of operations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum OperationCommand {
    /// Undo it, if it can still be undone.
    Cancel {
        /// The operation.
        operation: OperationId,
    },
}

impl Resource for Operation {
    type Key = OperationId;

    fn key(&self) -> OperationId {
        self.id
    }
    fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }
    fn table(state: &State) -> &Table<Operation> {
        &state.operations
    }
    fn table_mut(state: &mut State) -> &mut Table<Operation> {
        &mut state.operations
    }
    fn change(row: Row<Operation>) -> Change {
        Change::Operation(row)
    }

    fn reindex(state: &mut State, old: Option<&Operation>, new: Option<&Operation>) {
        if let Some(old) = old {
            if old.status.is_final() {
                state.operations_ended.remove(&(old.revision, old.id));
            } else {
                state.operations_open.remove(&(old.deadline_ms, old.id));
            }
            if old.waits_to_migrate() {
                state.migrations_queued.remove(&old.turn());
            }
        }
        if let Some(new) = new {
            if new.status.is_final() {
                state.operations_ended.insert((new.revision, new.id));
            } else {
                state.operations_open.insert((new.deadline_ms, new.id));
            }
            if new.waits_to_migrate() {
                state.migrations_queued.insert(new.turn());
            }
        }
    }
}

impl Operation {
    fn waits_to_migrate(&self) -> bool {
        self.kind == Kind::Migrate && self.status == Status::Queued
    }

    /// Its place in the queue: the higher priority first, then the older.
    fn turn(&self) -> (std::cmp::Reverse<u8>, Revision, OperationId) {
        (std::cmp::Reverse(self.priority), self.accepted, self.id)
    }
}

impl State {
    /// The operations of one project, newest last.
    pub fn operations_in(&self, project: &Name) -> impl Iterator<Item = &Arc<Operation>> {
        self.operations.values().filter(move |operation| operation.project == *project)
    }

    /// The operations that have not ended, by their deadlines.
    pub fn unfinished_operations(&self) -> impl Iterator<Item = &Arc<Operation>> {
        self.operations_open.iter().filter_map(|(_, id)| self.operations.get(id))
    }

    /// The migrations that wait for their turn, in the order of it.
    pub fn queued_migrations(&self) -> impl Iterator<Item = &Arc<Operation>> {
        self.migrations_queued.iter().filter_map(|(_, _, id)| self.operations.get(id))
    }

    /// How many migrations wait for their turn.
    #[must_use]
    pub fn queued_migrations_count(&self) -> usize {
        self.migrations_queued.len()
    }

    /// The unfinished migration of `vm`, with what only it knows.
    #[must_use]
    pub fn migration_of(&self, vm: VmId) -> Option<(&Arc<Operation>, &Migration)> {
        let operation = self.operations.get(&self.vms.get(&vm)?.operation?)?;
        Some((operation, operation.migration.as_deref()?))
    }
}
