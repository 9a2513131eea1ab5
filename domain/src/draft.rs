//! A draft: the state on which one command is decided, and what the command has changed of it.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Revision, State,
    alert::{Subject, Trend, Voters},
    canary::Canary,
    cluster::{Cluster, Mark, PROTOCOL_FIRST},
    envelope::Outcome,
    event::{Change, RowKey},
    host::Lease,
    id::{HostId, NodeId, OperationId},
    name::Name,
    node::Condition,
    operation::{Class, Grown},
    principal::Principal,
    rejected::{Reason, Rejected},
    table::{Resource, Row},
    trace::Trace,
};

/// The state under change, and what a rule may know of the command's circumstances.
#[derive(Clone)]
pub struct Draft {
    state: State,
    principal: Principal,
    wall_ms: u64,
    trace: Option<Trace>,
    /// Each changed row once, as it is by now.
    touched: BTreeMap<RowKey, Change>,
    changed: bool,
    outcome: Outcome,
}

impl Draft {
    /// Begins on `state`, which already stands at the entry's index and time.
    pub(crate) fn new(state: State, principal: Principal, wall_ms: u64) -> Draft {
        let outcome = Outcome { revision: state.revision(), ..Outcome::default() };
        let touched = BTreeMap::new();
        Draft { state, principal, wall_ms, trace: None, touched, changed: false, outcome }
    }

    /// The same, for a call that is traced.
    pub(crate) fn traced(self, trace: Option<Trace>) -> Draft {
        Draft { trace, ..self }
    }

    /// The state as changed so far.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The one way to change it.
    fn change(&mut self) -> &mut State {
        self.changed = true;
        &mut self.state
    }

    /// Whether anything may have changed; also where what was to be removed was not there.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// The author.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Wall time of the entry, Unix milliseconds: for people and for expiry, never for leases.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        self.wall_ms
    }

    /// The call that asked, when it is known.
    #[must_use]
    pub fn trace(&self) -> Option<Trace> {
        self.trace
    }

    /// The entry's log index.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.state.index
    }

    /// The entry's revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.state.revision()
    }

    /// Writes a row; its revision becomes the entry's.
    pub fn put<R: Resource>(&mut self, mut row: R) {
        row.set_revision(self.revision());
        let row = Arc::new(row);
        let key = row.key();
        let old = R::table_mut(self.change()).insert(key.clone(), row.clone());
        R::reindex(self.change(), old.as_deref(), Some(&row));
        self.touch(R::change(Row::Put(row)));
    }

    /// Removes a row, if it is there.
    pub fn delete<R: Resource>(&mut self, key: R::Key) {
        let Some(old) = R::table_mut(self.change()).remove(&key) else { return };
        R::reindex(self.change(), Some(&old), None);
        self.touch(R::change(Row::Delete(key)));
    }

    fn touch(&mut self, change: Change) {
        self.touched.insert(change.key(), change);
    }

    /// Refuses when a table is full.
    ///
    /// # Errors
    /// [`Reason::LimitReached`].
    pub fn room_for(&self, what: &str, count: usize, max: usize) -> Result<(), Rejected> {
        if count < max {
            return Ok(());
        }
        let message = format!("the cluster has {count} {what}, the most it may; delete some first");
        Err(Rejected::new(Reason::LimitReached, message))
    }

    /// Names the object of the answer.
    pub fn reply_object(&mut self, kind: &str, id: impl std::fmt::Display) {
        kind.clone_into(&mut self.outcome.kind);
        self.outcome.object = id.to_string();
    }

    /// Names the operation of the answer.
    pub fn reply_operation(&mut self, id: OperationId) {
        self.outcome.operation = Some(id);
    }

    pub(crate) fn grant_lease(&mut self, host: HostId, lease: Lease) {
        self.change().leases.insert(host, lease);
    }

    pub(crate) fn revoke_lease(&mut self, host: HostId) {
        self.change().leases.remove(&host);
    }

    pub(crate) fn set_grown(&mut self, class: Class, grown: Option<Grown>) {
        match grown {
            Some(grown) => self.change().grown.insert(class, grown),
            None => self.change().grown.remove(&class),
        };
    }

    pub(crate) fn found(&mut self, cluster: Cluster, protocol_version: u32) {
        self.change().cluster = Some(cluster);
        self.raise(protocol_version);
    }

    pub(crate) fn raise(&mut self, protocol_version: u32) {
        let state = self.change();
        state.protocol_version = protocol_version;
        state.protocol_since = if protocol_version == PROTOCOL_FIRST { 0 } else { state.index };
    }

    pub(crate) fn note_condition(&mut self, node: NodeId, condition: Option<Condition>) {
        match condition {
            Some(condition) => self.change().conditions.insert(node, condition),
            None => self.change().conditions.remove(&node),
        };
    }

    pub(crate) fn note_canary(&mut self, host: HostId, canary: Option<Canary>) {
        match canary {
            Some(canary) => self.change().canaries.insert(host, canary),
            None => self.change().canaries.remove(&host),
        };
    }

    pub(crate) fn note_voters(&mut self, voters: Voters) {
        self.change().voters = Some(voters);
    }

    pub(crate) fn look_at_alerts(&mut self, next_ms: u64) {
        self.change().alerts_look_ms = next_ms;
    }

    /// The trends of a rule are these, and no others.
    pub(crate) fn set_trends(&mut self, rule: &Name, trends: BTreeMap<Subject, Trend>) {
        let from = (rule.clone(), Subject::Cluster);
        let old = self.state.trends.range(from..).take_while(|((of, _), _)| of == rule);
        let old: Vec<_> = old.map(|(key, _)| key.clone()).collect();
        old.iter().for_each(|key| drop(self.change().trends.remove(key)));
        let new = trends.into_iter().map(|(of, trend)| ((rule.clone(), of), trend));
        self.change().trends.extend(new);
    }

    /// Remembers the history's hash before this entry, for the next tick to compare.
    pub(crate) fn mark(&mut self) {
        self.change().mark = Mark { index: self.state.index, chain: self.state.chain };
    }

    /// The changed state, each changed row once, and the answer.
    pub(crate) fn finish(self) -> (State, Vec<Change>, Outcome) {
        (self.state, self.touched.into_values().collect(), self.outcome)
    }
}
