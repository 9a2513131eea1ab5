//! Who belongs to the Raft group. Every node takes part; some vote, the rest follow. What should be
//! done is decided by the leader's membership actor; here is how.

use std::collections::{BTreeMap, BTreeSet};

use domain::id::NodeId;
use openraft::{ChangeMembers, Instant as _, async_runtime::WatchReceiver};

use super::{ProposeError, Store, core::Core};
use crate::{
    transport::wire,
    types::{Peer, Position},
};

/// What the leader knows of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    /// How far its log agrees with the leader's.
    pub matched: Option<Position>,
    /// Milliseconds since it was last heard of; absent when it never was.
    pub silent_ms: Option<u64>,
}

/// Where the group stands, as seen from this node.
#[derive(Clone, Debug)]
pub struct Status {
    /// This node.
    pub node: NodeId,
    /// The leader, if this node knows one.
    pub leader: Option<NodeId>,
    /// Whether this node leads.
    pub leads: bool,
    /// The current term.
    pub term: u64,
    /// The newest entry of this node's log.
    pub last_index: Option<u64>,
    /// The newest entry in this node's state.
    pub applied_index: Option<u64>,
    /// The newest entry in this node's snapshot.
    pub snapshot_index: Option<u64>,
    /// The newest entry that was purged from this node's log.
    pub purged_index: Option<u64>,
    /// The voters; of both sets while one replaces the other.
    pub voters: BTreeSet<NodeId>,
    /// Sets of voters of each of which a majority is needed, by this node's knowledge: one, or
    /// several until a change of voters is committed.
    pub electorates: BTreeSet<BTreeSet<NodeId>>,
    /// The set that is to be in force, when a change of voters was left half done.
    pub unfinished: Option<BTreeSet<NodeId>>,
    /// The nodes that follow without a vote.
    pub learners: BTreeSet<NodeId>,
    /// What the leader knows of the others; empty on other nodes.
    pub followers: BTreeMap<NodeId, Follower>,
}

impl Status {
    /// How many more voters may be lost before nothing can be decided. Only the leader hears of all of them: what
    /// others find here means nothing.
    #[must_use]
    pub fn losable(&self) -> usize {
        /// A voter not heard of for this long is not counted on, milliseconds.
        const SILENCE_MS_MAX: u64 = 2_000;
        let heard = |voter: &NodeId| {
            let silent_ms = self.followers.get(voter).and_then(|follower| follower.silent_ms);
            *voter == self.node || silent_ms.is_some_and(|ms| ms <= SILENCE_MS_MAX)
        };
        let spare = self.electorates.iter().map(|voters| {
            let quorum = voters.len() / 2 + 1;
            voters.iter().filter(|voter| heard(voter)).count().saturating_sub(quorum)
        });
        spare.min().unwrap_or(0)
    }
}

impl Store {
    /// Where the group stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.core.status()
    }

    /// Lets a node follow, from an entry or a snapshot on. Only the leader can.
    ///
    /// # Errors
    /// As [`Store::change`].
    pub async fn add_learner(&self, node: NodeId, address: &str) -> Result<(), ProposeError> {
        let peer = Peer { address: address.to_owned() };
        self.change(ChangeMembers::AddNodes([(node, peer)].into())).await
    }

    /// Gives these followers, and no others, a vote. Only the leader can.
    ///
    /// # Errors
    /// As [`Store::change`].
    pub async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), ProposeError> {
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    /// Takes a node out of the group. Only the leader can.
    ///
    /// # Errors
    /// As [`Store::change`].
    pub async fn remove_peer(&self, node: NodeId) -> Result<(), ProposeError> {
        self.change(ChangeMembers::RemoveNodes([node].into())).await
    }

    /// Carries out one change and waits until it is in force.
    ///
    /// # Errors
    /// [`ProposeError::Unknown`]: another change is under way, this node does not lead, or the change
    /// was begun and not finished. The membership shows which.
    async fn change(&self, change: ChangeMembers<NodeId, Peer>) -> Result<(), ProposeError> {
        let changed = self.core.raft.change_membership(change, true);
        match tokio::time::timeout(self.core.timing.deadline, changed).await {
            Ok(Ok(_)) => Ok(()),
            // A change has two steps: after the first, the rest is for the next attempt.
            Ok(Err(error)) => Err(ProposeError::Unknown(error.to_string())),
            Err(_) => Err(ProposeError::Unknown("the change did not finish in time".to_owned())),
        }
    }

    /// Hands the leadership to a voter that is caught up, through the leader, and waits until it leads.
    ///
    /// # Errors
    /// [`ProposeError::Unavailable`] when there is no leader, or `to` cannot take over.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), ProposeError> {
        let refuse = |why: String| Err(ProposeError::Unavailable(why));
        let Some(leader) = self.core.leader() else {
            return refuse("there is no leader".to_owned());
        };
        if leader == self.core.me.node {
            return self.core.hand_over_here(to).await;
        }
        let Some(address) = self.core.pool.address(leader) else {
            return refuse(format!("it is not known where node {leader} is"));
        };
        let mut request = self.core.pool.request(leader, wire::pack(&to));
        request.set_timeout(self.core.timing.deadline);
        let answer = self.core.pool.client(leader, &address).hand_over(request).await;
        let handed: Result<(), String> = match answer {
            Ok(answer) => wire::unpack(answer.get_ref()).unwrap_or_else(|s| Err(s.to_string())),
            Err(status) => return Err(ProposeError::Unknown(status.message().to_owned())),
        };
        handed.or_else(refuse)
    }

    /// Makes a snapshot now, and lets the log before it go.
    ///
    /// # Errors
    /// [`ProposeError::Unavailable`] when Raft has stopped.
    pub async fn snapshot(&self) -> Result<(), ProposeError> {
        let made = self.core.raft.trigger().snapshot().await;
        made.map_err(|error| ProposeError::Unavailable(error.to_string()))
    }
}

impl Core {
    /// Where the group stands.
    pub(crate) fn status(&self) -> Status {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let silent = |node: &NodeId| {
            let heard = metrics.heartbeat.as_ref()?.get(node)?.as_ref()?;
            u64::try_from(heard.elapsed().as_millis()).ok()
        };
        let sets = membership.get_joint_config();
        let followers = metrics.replication.iter().flatten();
        let followers = followers.map(|(node, matched)| {
            let matched = matched.as_ref().map(|at| Position::from(*at));
            (*node, Follower { matched, silent_ms: silent(node) })
        });
        Status {
            node: self.me.node,
            leader: metrics.current_leader,
            leads: metrics.state == openraft::ServerState::Leader,
            term: metrics.current_term,
            last_index: metrics.last_log_index,
            applied_index: metrics.last_applied.as_ref().map(|at| at.index),
            snapshot_index: metrics.snapshot.as_ref().map(|at| at.index),
            purged_index: metrics.purged.as_ref().map(|at| at.index),
            voters: membership.voter_ids().collect(),
            electorates: self.electorates_by(sets),
            unfinished: match sets.as_slice() {
                [_, newest] => Some(newest.clone()),
                _ => None,
            },
            learners: membership.learner_ids().collect(),
            followers: followers.collect(),
        }
    }

    /// See [`Status::electorates`].
    pub(super) fn electorates(&self) -> BTreeSet<BTreeSet<NodeId>> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        self.electorates_by(metrics.membership_config.membership().get_joint_config())
    }

    /// The same, by the sets that Raft goes by: who has borrowed its metrics may not borrow them once more.
    fn electorates_by(&self, sets: &[BTreeSet<NodeId>]) -> BTreeSet<BTreeSet<NodeId>> {
        // A change that is in force here may be unknown to those who would elect the next leader.
        let committed = self.views.borrow().members.voters.clone();
        sets.iter().cloned().chain(committed).collect()
    }

    /// Hands the leadership over, as the leader.
    ///
    /// # Errors
    /// [`ProposeError::Unavailable`] when this node does not lead, or `to` cannot take over.
    pub(crate) async fn hand_over_here(&self, to: NodeId) -> Result<(), ProposeError> {
        let refuse = |why: &str| Err(ProposeError::Unavailable(why.to_owned()));
        let status = self.status();
        if !status.leads {
            return refuse("this node does not lead");
        }
        if to == status.node {
            return Ok(());
        }
        if !status.voters.contains(&to) {
            return refuse("only a voter can lead");
        }
        // Raft stops serving while it hands over, and does not change its mind: a target that
        // cannot answer must not be tried.
        const LAG_MAX: u64 = 1_000;
        const SILENCE_MS_MAX: u64 = 1_000;
        let follower = status.followers.get(&to);
        let matched = follower.and_then(|f| f.matched).map_or(0, |at| at.index);
        let caught_up = matched + LAG_MAX >= status.last_index.unwrap_or(0);
        let heard = follower.and_then(|f| f.silent_ms).is_some_and(|ms| ms <= SILENCE_MS_MAX);
        if !caught_up || !heard {
            return refuse("the node is behind or is not heard of");
        }
        let handed = self.raft.trigger().transfer_leader(to).await;
        if let Err(error) = handed {
            return refuse(&error.to_string());
        }
        let wait = self.raft.wait(Some(self.timing.hand_over()));
        let led = wait.current_leader(to, "the leadership is handed over").await;
        led.map(|_| ()).or_else(|_| refuse("the node did not take over in time"))
    }
}
