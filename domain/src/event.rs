//! What a command changed: history, audit and watch streams.

use std::sync::Arc;

use imbl::Vector;
use serde::{Deserialize, Serialize};

use crate::{
    Revision,
    alert::{Alert, AlertKey, Rule, Silence},
    credential::Credential,
    envelope::{Outcome, Request},
    host::Host,
    id::{CredentialId, HostId, ImageId, InstanceId, NodeId, OperationId, TokenId, VmId},
    image::Image,
    instance::Instance,
    limit,
    lock::{Lock, LockKey},
    migration_policy::MigrationPolicy,
    name::Name,
    node::Node,
    operation::Operation,
    principal::Principal,
    project::Project,
    setting::Setting,
    table::{Resource, Row},
    token::JoinToken,
    vm::Vm,
};

/// A changed row of one noun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A project.
    Project(Row<Project>),
    /// A VM.
    Vm(Row<Vm>),
    /// A body.
    Instance(Row<Instance>),
    /// A host.
    Host(Row<Host>),
    /// An image.
    Image(Row<Image>),
    /// An operation.
    Operation(Row<Operation>),
    /// A lock.
    Lock(Row<Lock>),
    /// A setting.
    Setting(Row<Setting>),
    /// A migration policy.
    MigrationPolicy(Row<MigrationPolicy>),
    /// A rule of alerts.
    AlertRule(Row<Rule>),
    /// An alert.
    Alert(Row<Alert>),
    /// A silence.
    Silence(Row<Silence>),
    /// A node.
    Node(Row<Node>),
    /// A join token.
    Token(Row<JoinToken>),
    /// A credential.
    Credential(Row<Credential>),
}

/// One entry's effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The entry.
    pub revision: Revision,
    /// Lease time of the entry, milliseconds.
    pub at_ms: u64,
    /// Wall time of the entry, Unix milliseconds.
    pub wall_ms: u64,
    /// Who caused it.
    pub principal: Principal,
    /// The idempotency key it came with.
    #[serde(default)]
    pub request: Option<Request>,
    /// What the author was answered.
    pub outcome: Outcome,
    /// Each changed row once, as it is after the entry.
    pub changes: Vec<Change>,
}

impl Event {
    /// About how much memory it takes, bytes. The bound on the ring rests on it, so it must be the
    /// same everywhere: it is computed from the content and not measured.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        const EVENT: usize = 512;
        EVENT + self.changes.iter().map(Change::weight_bytes).sum::<usize>()
    }
}

impl Change {
    fn weight_bytes(&self) -> usize {
        // Rows are shared with the tables while they are current; what is counted is what they cost
        // once they are not. Texts dominate where they are long.
        const ROW: usize = 512;
        let text = match self {
            Change::Vm(Row::Put(vm)) => vm.spec.text_bytes(),
            Change::Instance(Row::Put(body)) => body.spec.text_bytes(),
            Change::Operation(Row::Put(operation)) => operation.message.len(),
            Change::Image(Row::Put(image)) => image.origin.len(),
            Change::Lock(Row::Put(lock)) => lock.weight_bytes(),
            Change::MigrationPolicy(Row::Put(policy)) => policy.text_bytes(),
            Change::AlertRule(Row::Put(rule)) => rule.text_bytes(),
            Change::Silence(Row::Put(silence)) => silence.reason.len(),
            Change::Vm(Row::Delete(_))
            | Change::Instance(Row::Delete(_))
            | Change::Operation(Row::Delete(_))
            | Change::Image(Row::Delete(_))
            | Change::Lock(Row::Delete(_))
            | Change::MigrationPolicy(Row::Delete(_))
            | Change::AlertRule(Row::Delete(_))
            | Change::Silence(Row::Delete(_))
            | Change::Alert(_)
            | Change::Project(_)
            | Change::Host(_)
            | Change::Setting(_)
            | Change::Node(_)
            | Change::Token(_)
            | Change::Credential(_) => 0,
        };
        ROW + text
    }

    /// Which row it is about.
    #[must_use]
    pub fn key(&self) -> RowKey {
        fn of<R: Resource>(row: &Row<R>) -> R::Key {
            match row {
                Row::Put(row) => row.key(),
                Row::Delete(key) => key.clone(),
            }
        }
        match self {
            Change::Project(row) => RowKey::Project(of(row)),
            Change::Vm(row) => RowKey::Vm(of(row)),
            Change::Instance(row) => RowKey::Instance(of(row)),
            Change::Host(row) => RowKey::Host(of(row)),
            Change::Image(row) => RowKey::Image(of(row)),
            Change::Operation(row) => RowKey::Operation(of(row)),
            Change::Lock(row) => RowKey::Lock(of(row)),
            Change::Setting(row) => RowKey::Setting(of(row)),
            Change::MigrationPolicy(row) => RowKey::MigrationPolicy(of(row)),
            Change::AlertRule(row) => RowKey::AlertRule(of(row)),
            Change::Alert(row) => RowKey::Alert(of(row)),
            Change::Silence(row) => RowKey::Silence(of(row)),
            Change::Node(row) => RowKey::Node(of(row)),
            Change::Token(row) => RowKey::Token(of(row)),
            Change::Credential(row) => RowKey::Credential(of(row)),
        }
    }

    /// Whether the row was removed.
    #[must_use]
    pub fn is_delete(&self) -> bool {
        match self {
            Change::Project(row) => matches!(row, Row::Delete(_)),
            Change::Vm(row) => matches!(row, Row::Delete(_)),
            Change::Instance(row) => matches!(row, Row::Delete(_)),
            Change::Host(row) => matches!(row, Row::Delete(_)),
            Change::Image(row) => matches!(row, Row::Delete(_)),
            Change::Operation(row) => matches!(row, Row::Delete(_)),
            Change::Lock(row) => matches!(row, Row::Delete(_)),
            Change::MigrationPolicy(row) => matches!(row, Row::Delete(_)),
            Change::Setting(row) => matches!(row, Row::Delete(_)),
            Change::AlertRule(row) => matches!(row, Row::Delete(_)),
            Change::Alert(row) => matches!(row, Row::Delete(_)),
            Change::Silence(row) => matches!(row, Row::Delete(_)),
            Change::Node(row) => matches!(row, Row::Delete(_)),
            Change::Token(row) => matches!(row, Row::Delete(_)),
            Change::Credential(row) => matches!(row, Row::Delete(_)),
        }
    }
}

/// Names one row of the state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RowKey {
    /// A project.
    Project(Name),
    /// A VM.
    Vm(VmId),
    /// A body.
    Instance(InstanceId),
    /// A host.
    Host(HostId),
    /// An image.
    Image(ImageId),
    /// An operation.
    Operation(OperationId),
    /// A lock.
    Lock(LockKey),
    /// A setting.
    Setting(crate::setting::Key),
    /// A migration policy.
    MigrationPolicy(Name),
    /// A rule of alerts.
    AlertRule(Name),
    /// An alert.
    Alert(AlertKey),
    /// A silence.
    Silence(Name),
    /// A node.
    Node(NodeId),
    /// A join token.
    Token(TokenId),
    /// A credential.
    Credential(CredentialId),
}

/// The newest events, the same on every node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    events: Vector<Arc<Event>>,
    weight_bytes: usize,
    floor: Revision,
}

impl Ring {
    /// Appends an event and drops the oldest ones past the bounds.
    pub(crate) fn push(&mut self, event: Arc<Event>) {
        self.weight_bytes += event.weight_bytes();
        self.events.push_back(event);
        while self.events.len() > limit::EVENTS_MAX || self.weight_bytes > limit::EVENT_BYTES_MAX {
            let Some(oldest) = self.events.pop_front() else { return };
            self.weight_bytes -= oldest.weight_bytes();
            self.floor = oldest.revision;
        }
    }

    /// Sets what was dropped before the first event, when a ring is restored.
    pub(crate) fn set_floor(&mut self, floor: Revision) {
        self.floor = floor;
    }

    /// The newest event that is gone. A watch that starts before it has missed something.
    #[must_use]
    pub fn floor(&self) -> Revision {
        self.floor
    }

    /// The newest event, or the newest one that is gone when there is none.
    pub(crate) fn newest(&self) -> Revision {
        self.events.last().map_or(self.floor, |event| event.revision)
    }

    /// The events after `since`, oldest first.
    ///
    /// # Errors
    /// [`Compacted`] when some of them are gone.
    pub fn after(&self, since: Revision) -> Result<impl Iterator<Item = &Arc<Event>>, Compacted> {
        if since < self.floor {
            return Err(Compacted { floor: self.floor });
        }
        let from = self.events.binary_search_by(|event| event.revision.cmp(&since));
        let from = from.map_or_else(|before| before, |found| found + 1);
        Ok((from..self.events.len()).filter_map(|index| self.events.get(index)))
    }

    /// All events, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.events.iter()
    }

    /// How many events are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// Events that a watcher asked for are gone: list again and watch from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("events up to revision {floor} are gone; list again and watch from the list's revision")]
pub struct Compacted {
    /// The newest event that is gone.
    pub floor: Revision,
}
