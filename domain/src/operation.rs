//! A long task somebody may wait for: what was asked, how far it is, how it ended.
//!
//! ```text
//!  Queued ◀──▶ Running ──▶ Done
//!    │ ▲         │  └────▶ Stuck      its cause needs a person: its deadline passed, its retries are used up
//!    │ └─────────│─────────┘ │        retried or resumed by a person
//!    │           ▼           ▼
//!    └─────▶ Unwinding ──▶ RolledBack abandoned by a person
//! ```
//!
//! It goes back to the queue when its host is not heard of any more: what cannot be worked on holds no
//! worker. A migration that is to be undone when its guest has left already goes on: Unwinding ──▶ Running.
//! Cancel is a request, not a state: it turns the VM's wish back to what it was.

mod class;
mod kind;
mod lifecycle;
mod migration;
mod parent;
mod probe;
mod queue;
mod step;
mod stuck;

pub use class::Class;
pub use kind::{Definition, Kind};
pub(crate) use lifecycle::{
    decide, end, expire, failed, open, open_notice, overtake, settle, vm_gone, withdraw,
};
pub use migration::{CopyPolicy, CopyWish, Migration, Progress, Step, Terms, WhenSilent};
pub(crate) use parent::{begin_drain, begin_restore, end_drain, settle_drain};
pub(crate) use probe::{heard, host_gone};
pub use queue::Grown;
pub(crate) use queue::{Turn, advance, begin, look};
pub use step::StepName;
pub(crate) use stuck::retry_failed;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Revision, State,
    event::Change,
    id::{HostId, OperationId, VmId},
    name::Name,
    principal::Principal,
    table::{Resource, Row, Table, shift},
    trace::Trace,
    vm::Desired,
};

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted; it waits for a worker, or for its host.
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
            | (
                Status::Running,
                Status::Queued | Status::Unwinding | Status::Done | Status::Stuck,
            )
            | (Status::Running | Status::Unwinding | Status::Stuck, Status::RolledBack)
            // A person has it tried again.
            | (Status::Stuck, Status::Queued | Status::Running)
            // It came about later.
            | (Status::Stuck, Status::Done)
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
    /// Of what.
    pub subject: Subject,
    /// Whose workers it needs.
    pub class: Class,
    /// The call that asked for it, or the operation that it is a part of; see [`Operation::place_in_trace`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// The operation that it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<OperationId>,
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
    /// Lease time at which it began to wait, milliseconds.
    #[serde(default)]
    pub accepted_ms: u64,
    /// Whether only a worker is missing: a host that is heard of has the body.
    #[serde(default)]
    pub ready: bool,
    /// Failures so far; when they are used up it is stuck.
    #[serde(default)]
    pub failures: u32,
    /// The steps it has begun, and when, Unix milliseconds.
    #[serde(default)]
    pub steps: Vec<(StepName, u64)>,
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

/// Of what an operation is. Names outlive what they name here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A VM.
    Vm {
        /// Which.
        id: VmId,
        /// Its project.
        project: Name,
        /// Its name.
        name: Name,
    },
    /// A host.
    Host {
        /// Which.
        id: HostId,
        /// Its name.
        name: Name,
    },
    /// The hosts of the cluster.
    Cluster,
    /// Alerts.
    Alerts {
        /// How many.
        count: u32,
    },
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
    /// Have one that is stuck tried again, from its first step.
    Retry {
        /// The operation.
        operation: OperationId,
    },
    /// Have one that is stuck go on where it is.
    Resume {
        /// The operation.
        operation: OperationId,
    },
    /// Give one that is stuck up: what was wanted before is wanted again.
    Abandon {
        /// The operation.
        operation: OperationId,
    },
    /// See whether hosts' drivers answer.
    Probe {
        /// The operation's id.
        operation: OperationId,
        /// Whose workers do it.
        class: Class,
        /// The hosts, each with the id of its part.
        hosts: Vec<(HostId, OperationId)>,
    },
    /// What came of asking a driver. Only nodes tell.
    Probed {
        /// The host's part.
        operation: OperationId,
        /// How long the answer took, milliseconds; or why there is none.
        answer: Result<u64, String>,
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
        let ended = |row: &Operation| row.status.is_final().then_some((row.revision, row.id));
        let (was, is) = (old.and_then(ended), new.and_then(ended));
        shift(&mut state.operations_ended, was, is);
        let stuck = |row: &Operation| (row.status == Status::Stuck).then(|| (row.vm(), row.id));
        let (was, is) = (old.and_then(stuck), new.and_then(stuck));
        shift(&mut state.operations_stuck, was, is);

        let open = |row: &&Operation| !row.status.is_final();
        let (was, is) = (old.filter(open), new.filter(open));
        let due = |row: &Operation| (row.deadline_ms, row.id);
        shift(&mut state.operations_open, was.map(due), is.map(due));
        let parent = |row: &Operation| row.parent.map(|parent| (parent, row.id));
        shift(&mut state.operations_by_parent, was.and_then(parent), is.and_then(parent));
        let host = |row: &Operation| row.host().map(|host| (host, row.id));
        shift(&mut state.operations_by_host, was.and_then(host), is.and_then(host));

        old.into_iter().for_each(|old| queue::leave(state, old));
        new.into_iter().for_each(|new| queue::enter(state, new));
    }
}

impl Operation {
    /// The VM that it is of.
    #[must_use]
    pub const fn vm(&self) -> Option<VmId> {
        match &self.subject {
            Subject::Vm { id, .. } => Some(*id),
            Subject::Host { .. } | Subject::Cluster | Subject::Alerts { .. } => None,
        }
    }

    /// The host that it is of.
    #[must_use]
    pub const fn host(&self) -> Option<HostId> {
        match &self.subject {
            Subject::Host { id, .. } => Some(*id),
            Subject::Vm { .. } | Subject::Cluster | Subject::Alerts { .. } => None,
        }
    }

    /// Whether it only waits for its parts, and so needs no worker.
    #[must_use]
    pub const fn is_parent(&self) -> bool {
        self.kind.definition().is_parent || matches!(self.subject, Subject::Cluster)
    }
}

impl State {
    /// The operations that have not ended, by their deadlines.
    pub fn unfinished_operations(&self) -> impl Iterator<Item = &Arc<Operation>> {
        self.operations_open.iter().filter_map(|(_, id)| self.operations.get(id))
    }

    /// The parts of an operation that have not ended.
    pub fn unfinished_parts(&self, of: OperationId) -> impl Iterator<Item = &Arc<Operation>> {
        use newtype_uuid::GenericUuid;
        let from = (of, OperationId::from_untyped_uuid(uuid::Uuid::nil()));
        let upto = (of, OperationId::from_untyped_uuid(uuid::Uuid::max()));
        self.operations_by_parent.range(from..=upto).filter_map(|(_, id)| self.operations.get(id))
    }

    /// The operations of a host that have not ended.
    pub fn unfinished_of(&self, host: HostId) -> impl Iterator<Item = &Arc<Operation>> {
        use newtype_uuid::GenericUuid;
        let from = (host, OperationId::from_untyped_uuid(uuid::Uuid::nil()));
        let upto = (host, OperationId::from_untyped_uuid(uuid::Uuid::max()));
        self.operations_by_host.range(from..=upto).filter_map(|(_, id)| self.operations.get(id))
    }

    /// The operations that wait for an answer of a host's driver.
    pub fn asked_of(&self, host: HostId) -> impl Iterator<Item = OperationId> {
        let asks = |row: &&Arc<Operation>| row.kind == Kind::Probe && row.status == Status::Running;
        self.unfinished_of(host).filter(asks).map(|row| row.id)
    }

    /// The unfinished migration of `vm`, with what only it knows.
    #[must_use]
    pub fn migration_of(&self, vm: VmId) -> Option<(&Arc<Operation>, &Migration)> {
        let operation = self.operations.get(&self.vms.get(&vm)?.operation?)?;
        Some((operation, operation.migration.as_deref()?))
    }
}
