//! Reading: how fresh is a view?

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::{Revision, cluster::PROTOCOL_CONFIRM};
use openraft::ReadPolicy;
use tokio::time::Instant;

use super::{Store, core::Core, core::pauses};
use crate::{
    is_broken,
    transport::wire::{self, ReadFrom},
    types::{Ballot, Position},
    view::View,
};

/// How fresh a view must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// It holds everything that was acknowledged before the read began, by whichever node.
    #[default]
    Linearizable,
    /// It holds this entry. Any node can answer, without a leader.
    AtLeast(Revision),
    /// It is at most this old. A node that cannot show it refuses.
    MaxAge(Duration),
}

/// Why there is no view that is fresh enough.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// Nobody could say what is newest, or this node does not catch up in time.
    #[error("this node cannot serve the read: {0}; try another")]
    Unavailable(String),
    /// The revision belongs to a history that a recovery gave up.
    #[error("revision {0} belongs to a history that is no more; list again")]
    OtherEpoch(Revision),
}

/// The newest entry that was known to be committed at some time.
#[derive(Default)]
pub(crate) struct Probe(Mutex<Option<(Duration, Option<Position>)>>);

impl Store {
    /// A view that is fresh enough.
    ///
    /// # Errors
    /// [`ReadError`] when the deadline passes first.
    pub async fn read(&self, consistency: Consistency) -> Result<Arc<View>, ReadError> {
        let deadline = Instant::now() + self.core.timing.deadline;
        match consistency {
            Consistency::Linearizable => self.core.read_newest(deadline).await,
            Consistency::AtLeast(revision) => self.core.await_revision(revision, deadline).await,
            Consistency::MaxAge(age) => self.core.read_younger(age, deadline).await,
        }
    }
}

impl Core {
    async fn read_newest(&self, deadline: Instant) -> Result<Arc<View>, ReadError> {
        let at = self.read_index(deadline).await?;
        self.await_entry(at, deadline).await
    }

    /// Asks the leader from which entry on a read is linearizable, until it answers.
    async fn read_index(&self, deadline: Instant) -> Result<Option<Position>, ReadError> {
        if is_broken("read-locally") {
            return Ok(None);
        }
        let mut pauses = pauses();
        loop {
            let answer = tokio::time::timeout_at(deadline, self.read_index_once()).await;
            let why = match answer {
                Ok(ReadFrom::Entry(at)) => return Ok(at),
                Ok(ReadFrom::NotLeader(_)) => "there is no leader".to_owned(),
                Ok(ReadFrom::Unavailable(why)) => why,
                Err(_) => "the leader did not answer in time".to_owned(),
            };
            let next = Instant::now() + pauses.next().unwrap_or_default();
            if next >= deadline {
                return Err(ReadError::Unavailable(why));
            }
            tokio::time::sleep_until(next).await;
        }
    }

    async fn read_index_once(&self) -> ReadFrom {
        match self.leader() {
            Some(leader) if leader == self.me.node => self.read_index_here().await,
            Some(leader) => {
                let Some(address) = self.pool.address(leader) else {
                    return ReadFrom::NotLeader(None);
                };
                let unavailable = |status: tonic::Status| {
                    self.pool.heed(&status);
                    ReadFrom::Unavailable(format!("node {leader}: {}", status.message()))
                };
                let mut request = self.pool.request(leader, wire::pack(&()));
                request.set_timeout(Duration::from_secs(2));
                match self.pool.client(leader, &address).read_index(request).await {
                    Ok(answer) => wire::unpack(answer.get_ref()).unwrap_or_else(unavailable),
                    Err(status) => unavailable(status),
                }
            }
            None => ReadFrom::NotLeader(None),
        }
    }

    /// Answers as the leader, after it has made sure that it still is.
    pub(crate) async fn read_index_here(&self) -> ReadFrom {
        if let Some(at) = self.confirmed().await {
            self.checks.by_promises.increment(1);
            return ReadFrom::Entry(Some(at));
        }
        self.checks.by_heartbeats.increment(1);
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => {
                let at = *linearizer.read_log_id().log_id();
                ReadFrom::Entry(Some(at.into()))
            }
            Err(error) => match error.forward_to_leader() {
                Some(forward) => ReadFrom::NotLeader(forward.leader_id),
                None => ReadFrom::Unavailable(error.to_string()),
            },
        }
    }

    /// The newest entry that anybody can have read or written, if this node leads, has applied an entry of its own, and
    /// nobody can have been elected after it. None is no evidence of anything.
    async fn confirmed(&self) -> Option<Position> {
        let term = self.leading_term()?;
        let view = self.views.borrow().clone();
        let at = view.at.filter(|at| (at.term, at.node) == (term, self.me.node))?;
        // A follower may have applied, and shown, what was applied here a moment later.
        let at = Position { index: at.index.max(self.pool.told()), ..at };
        let ballot = Ballot { term, node: self.me.node, committed: true };
        let asks = view.state.protocol_version >= PROTOCOL_CONFIRM;
        (asks && self.confirmer.holds(ballot, self.electorates()).await).then_some(at)
    }

    async fn await_entry(
        &self,
        at: Option<Position>,
        deadline: Instant,
    ) -> Result<Arc<View>, ReadError> {
        let index = at.map(|at| at.index);
        let mut views = self.views.clone();
        let reached = views.wait_for(|view| view.at.map(|at| at.index) >= index);
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(view)) => Ok(view.clone()),
            Ok(Err(_)) => Err(ReadError::Unavailable("the node is stopping".to_owned())),
            Err(_) => Err(ReadError::Unavailable("it is behind and did not catch up".to_owned())),
        }
    }

    async fn await_revision(
        &self,
        revision: Revision,
        deadline: Instant,
    ) -> Result<Arc<View>, ReadError> {
        /// A node that is further behind sends the caller to another one.
        const PATIENCE: Duration = Duration::from_secs(2);
        let deadline = deadline.min(Instant::now() + PATIENCE);
        let mut views = self.views.clone();
        let epoch = views.borrow().state.epoch;
        if revision != Revision::ZERO && revision.epoch() != epoch {
            return Err(ReadError::OtherEpoch(revision));
        }
        let reached = views.wait_for(|view| view.revision() >= revision);
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(view)) => Ok(view.clone()),
            Ok(Err(_)) => Err(ReadError::Unavailable("the node is stopping".to_owned())),
            Err(_) => Err(ReadError::Unavailable("it is behind and did not catch up".to_owned())),
        }
    }

    /// Serves from what was newest a short while ago, as shown by a probe: its age counts from
    /// before it was sent. A heartbeat received proves no age.
    async fn read_younger(&self, age: Duration, deadline: Instant) -> Result<Arc<View>, ReadError> {
        let known = *self.probe.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((sent, at)) = known
            && (self.ground.clocks.since_boot)().saturating_sub(sent) <= age
        {
            let view = self.views.borrow().clone();
            if view.at.map(|at| at.index) >= at.map(|at| at.index) {
                return Ok(view);
            }
        }
        let sent = (self.ground.clocks.since_boot)();
        let at = self.read_index(deadline.min(Instant::now() + age.max(MIN_PROBE))).await?;
        *self.probe.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((sent, at));
        let view = self.await_entry(at, deadline).await?;
        if (self.ground.clocks.since_boot)().saturating_sub(sent) <= age {
            return Ok(view);
        }
        Err(ReadError::Unavailable(format!("it could not show a view younger than {age:?}")))
    }
}

/// Least time that a probe is given.
const MIN_PROBE: Duration = Duration::from_millis(100);
