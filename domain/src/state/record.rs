//! The state as a sequence of records, for snapshots and for the copy in sled. The secondary
//! indexes are not written: they are made again from the rows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::State;
use crate::{
    Revision,
    alert::{AlertKey, Trend, Voters},
    canary::Canary,
    cluster::{Cluster, Mark, PROTOCOL_VERSION},
    event::{Change, Event, RowKey},
    host::Lease,
    id::{Digest, HostId, NodeId, VmId},
    instance::Instance,
    node::Condition,
    operation::{Class, Grown},
    request::Remembered,
    table::{Resource, Row},
};

/// What the state has besides rows. The first record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// See [`State::epoch`].
    pub epoch: u16,
    /// See [`State::index`].
    pub index: u64,
    /// See [`State::now_ms`].
    pub now_ms: u64,
    /// See [`State::chain`].
    pub chain: Digest,
    /// See [`State::mark`].
    pub mark: Mark,
    /// See [`State::protocol_version`].
    pub protocol_version: u32,
    /// See [`State::protocol_since`]. A program that knows the first protocol alone stops at it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub protocol_since: u64,
    /// See [`State::cluster`].
    pub cluster: Option<Cluster>,
    /// The leases of all hosts.
    pub leases: Vec<(HostId, Lease)>,
    /// The workers that have grown.
    #[serde(default)]
    pub grown: Vec<(Class, Grown)>,
    /// See [`State::conditions`].
    #[serde(default)]
    pub conditions: Vec<(NodeId, Condition)>,
    /// See [`State::canaries`].
    #[serde(default)]
    pub canaries: Vec<(HostId, Canary)>,
    /// See [`State::voters`].
    #[serde(default)]
    pub voters: Option<Voters>,
    /// See [`State::alerts_look_ms`].
    #[serde(default)]
    pub alerts_look_ms: u64,
    /// See [`State::trends`].
    #[serde(default)]
    pub trends: Vec<(AlertKey, Trend)>,
    /// The newest remembered request that is gone.
    pub requests_floor: u64,
    /// The newest event that is gone.
    pub events_floor: Revision,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A piece of the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// What is no row.
    Meta(Box<Meta>),
    /// A row.
    Row(Change),
    /// A remembered request.
    Request(Box<Remembered>),
    /// An event of the ring, oldest first.
    Event(Arc<Event>),
}

/// The records of a state, in the one order that makes equal states equal bytes.
pub struct Records<'a>(Box<dyn Iterator<Item = Record> + Send + 'a>);

impl Iterator for Records<'_> {
    type Item = Record;
    fn next(&mut self) -> Option<Record> {
        self.0.next()
    }
}

impl State {
    /// What is no row.
    #[must_use]
    pub fn meta(&self) -> Meta {
        Meta {
            epoch: self.epoch,
            index: self.index,
            now_ms: self.now_ms,
            chain: self.chain,
            mark: self.mark,
            protocol_version: self.protocol_version,
            protocol_since: self.protocol_since,
            cluster: self.cluster.clone(),
            leases: self.leases.iter().map(|(host, lease)| (*host, *lease)).collect(),
            grown: self.grown.iter().map(|(class, grown)| (*class, *grown)).collect(),
            conditions: self.conditions.iter().map(|(node, it)| (*node, *it)).collect(),
            canaries: self.canaries.iter().map(|(host, it)| (*host, it.clone())).collect(),
            voters: self.voters,
            alerts_look_ms: self.alerts_look_ms,
            trends: self.trends.iter().map(|(key, trend)| (key.clone(), trend.clone())).collect(),
            requests_floor: self.requests.floor(),
            events_floor: self.events.floor(),
        }
    }

    /// Every row.
    pub fn rows(&self) -> impl Iterator<Item = Change> + Send + '_ {
        fn of<'a, R>(state: &'a State) -> impl Iterator<Item = Change> + Send + 'a
        where
            R: Resource<Key: Send + Sync> + Send + Sync + 'a,
        {
            R::table(state).values().map(|row| R::change(Row::Put(row.clone())))
        }
        of::<crate::project::Project>(self)
            .chain(of::<crate::node::Node>(self))
            .chain(of::<crate::token::JoinToken>(self))
            .chain(of::<crate::credential::Credential>(self))
            .chain(of::<crate::setting::Setting>(self))
            .chain(of::<crate::migration_policy::MigrationPolicy>(self))
            .chain(of::<crate::alert::Rule>(self))
            .chain(of::<crate::alert::Alert>(self))
            .chain(of::<crate::alert::Silence>(self))
            .chain(of::<crate::image::Image>(self))
            .chain(of::<crate::host::Host>(self))
            .chain(of::<crate::vm::Vm>(self))
            .chain(of::<crate::instance::Instance>(self))
            .chain(of::<crate::operation::Operation>(self))
            .chain(of::<crate::lock::Lock>(self))
    }

    /// The whole state as records.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        let meta = std::iter::once(Record::Meta(Box::new(self.meta())));
        let rows = self.rows().map(Record::Row);
        let requests = self.requests.since(0).map(|request| Record::Request(Box::new(request)));
        let events = self.events.iter().map(|event| Record::Event(event.clone()));
        Records(Box::new(meta.chain(rows).chain(requests).chain(events)))
    }
}

/// Why records are no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The first record is not the meta record, or there are two.
    #[error("a state begins with exactly one meta record")]
    Meta,
    /// The cluster has gone on to a protocol that this program does not understand.
    #[error(
        "the cluster speaks protocol {0} and this program only {PROTOCOL_VERSION}; install the newer program"
    )]
    Newer(u32),
    /// A row that was removed has no place in a state.
    #[error("a removed row among the records: {0:?}")]
    Deleted(RowKey),
    /// A row appears twice.
    #[error("two records of one row: {0:?}")]
    Twice(RowKey),
    /// Events are not in order.
    #[error("events out of order at revision {0}")]
    Order(Revision),
}

/// Builds a state from its records.
#[derive(Default)]
pub struct Loader {
    state: Option<State>,
}

impl Loader {
    /// Takes the next record.
    ///
    /// # Errors
    /// [`RecordError`] when it cannot follow the ones before.
    pub fn push(&mut self, record: Record) -> Result<(), RecordError> {
        match (&mut self.state, record) {
            (None, Record::Meta(meta)) if meta.protocol_version > PROTOCOL_VERSION => {
                return Err(RecordError::Newer(meta.protocol_version));
            }
            (state @ None, Record::Meta(meta)) => *state = Some(from_meta(*meta)),
            (None, Record::Row(_) | Record::Request(_) | Record::Event(_))
            | (Some(_), Record::Meta(_)) => return Err(RecordError::Meta),
            (Some(state), Record::Row(change)) => insert(state, change)?,
            (Some(state), Record::Request(request)) => state.requests.restore(*request),
            (Some(state), Record::Event(event)) => {
                let newest = state.events.newest();
                if event.revision <= newest && newest != Revision::ZERO {
                    return Err(RecordError::Order(event.revision));
                }
                state.events.push(event);
            }
        }
        Ok(())
    }

    /// The state.
    ///
    /// # Errors
    /// [`RecordError::Meta`] when there were no records.
    pub fn finish(self) -> Result<State, RecordError> {
        self.state.ok_or(RecordError::Meta)
    }
}

fn from_meta(meta: Meta) -> State {
    let mut state = State {
        epoch: meta.epoch,
        index: meta.index,
        now_ms: meta.now_ms,
        chain: meta.chain,
        mark: meta.mark,
        protocol_version: meta.protocol_version,
        protocol_since: meta.protocol_since,
        cluster: meta.cluster,
        leases: meta.leases.into_iter().collect(),
        grown: meta.grown.into_iter().collect(),
        conditions: meta.conditions.into_iter().collect(),
        canaries: meta.canaries.into_iter().collect(),
        voters: meta.voters,
        alerts_look_ms: meta.alerts_look_ms,
        trends: meta.trends.into_iter().collect(),
        ..State::default()
    };
    state.requests.set_floor(meta.requests_floor);
    state.events.set_floor(meta.events_floor);
    state
}

fn insert(state: &mut State, change: Change) -> Result<(), RecordError> {
    fn put<R: Resource>(state: &mut State, row: Row<R>, key: RowKey) -> Result<(), RecordError> {
        let Row::Put(row) = row else { return Err(RecordError::Deleted(key)) };
        if R::table_mut(state).insert(row.key(), row.clone()).is_some() {
            return Err(RecordError::Twice(key));
        }
        R::reindex(state, None, Some(&row));
        Ok(())
    }
    let key = change.key();
    let vm = if let Change::Vm(Row::Put(vm)) = &change {
        Some(vm.id)
    } else if let Change::Instance(Row::Put(body)) = &change {
        Some(body.vm)
    } else {
        None
    };
    match change {
        Change::Project(row) => put(state, row, key),
        Change::Vm(row) => put(state, row, key),
        Change::Instance(row) => put(state, row, key),
        Change::Host(row) => put(state, row, key),
        Change::Image(row) => put(state, row, key),
        Change::Operation(row) => put(state, row, key),
        Change::Lock(row) => put(state, row, key),
        Change::Setting(row) => put(state, row, key),
        Change::MigrationPolicy(row) => put(state, row, key),
        Change::AlertRule(row) => put(state, row, key),
        Change::Alert(row) => put(state, row, key),
        Change::Silence(row) => put(state, row, key),
        Change::Node(row) => put(state, row, key),
        Change::Token(row) => put(state, row, key),
        Change::Credential(row) => put(state, row, key),
    }?;
    if let Some(vm) = vm {
        share_spec(state, vm);
    }
    Ok(())
}

/// A body that was made from what its VM is to be shares it, as it did before the state was written.
fn share_spec(state: &mut State, id: VmId) {
    let (Some(vm), Some(body)) = (state.vms.get(&id), state.instance_of(id)) else { return };
    if vm.spec == body.spec && !Arc::ptr_eq(&vm.spec, &body.spec) {
        let body = Instance { spec: vm.spec.clone(), ..Instance::clone(body) };
        state.instances.insert(body.id, Arc::new(body));
    }
}
