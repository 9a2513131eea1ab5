//! Who votes: up to `voters-max` nodes that keep up; the rest follow. One change at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use domain::{State, id::NodeId, setting::Key};
use raft_store::{Status, Store};

/// Entries that a node may be behind and still counts as caught up.
const LAG_MAX: u64 = 1_000;
/// How long it must have been caught up before it gets a vote: longer than a silence that is not noticed yet. Until then
/// the cluster bears fewer losses.
const STEADY: Duration = Duration::from_secs(2);
/// A peer not heard of for this long, milliseconds, is not steady.
const SILENCE_MS_MAX: u64 = 1_000;

/// A change of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Let a member follow.
    Add(NodeId),
    /// Give exactly these a vote.
    Voters(BTreeSet<NodeId>),
    /// Take out a node that is no member any more.
    Remove(NodeId),
    /// Hand the leadership over: this node is no member any more.
    StepDown(NodeId),
}

/// What the rules need to know of the group.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// This node, which leads.
    pub me: NodeId,
    /// The members, as the state has them.
    pub members: BTreeSet<NodeId>,
    /// The voters.
    pub voters: BTreeSet<NodeId>,
    /// The followers without a vote.
    pub learners: BTreeSet<NodeId>,
    /// Followers that have kept up for a while.
    pub steady: BTreeSet<NodeId>,
    /// Voters that were silent for longer than the grace.
    pub lost: BTreeSet<NodeId>,
    /// The setting `voters-max`.
    pub voters_max: usize,
}

/// The next change, if one is due.
#[must_use]
pub fn next_change(group: &Group) -> Option<Change> {
    let known = |node: &NodeId| group.voters.contains(node) || group.learners.contains(node);
    if let Some(node) = group.members.iter().find(|node| !known(node)) {
        return Some(Change::Add(*node));
    }
    let expelled = |node: &&NodeId| !group.members.contains(node);
    if let Some(node) = group.learners.iter().find(expelled) {
        return Some(Change::Remove(*node));
    }
    let swap = |gone: Option<&NodeId>, new: Option<&NodeId>| {
        let stay = group.voters.iter().filter(|node| Some(*node) != gone);
        Some(Change::Voters(stay.chain(new).copied().collect()))
    };
    if let Some(node) = group.voters.iter().find(expelled) {
        if *node == group.me {
            return group.steady.intersection(&group.voters).next().map(|to| Change::StepDown(*to));
        }
        return swap(Some(node), None);
    }
    let spare = group.learners.intersection(&group.steady).next();
    if group.voters.len() > group.voters_max {
        // The lost ones first, never the leader.
        let others = || group.voters.iter().filter(|node| **node != group.me);
        let least =
            others().find(|node| group.lost.contains(node)).or_else(|| others().next_back())?;
        return swap(Some(least), None);
    }
    let spare = spare?;
    if group.voters.len() < group.voters_max {
        return swap(None, Some(spare));
    }
    let lost = group.lost.iter().next()?;
    swap(Some(lost), Some(spare))
}

/// Watches the followers and makes one change after the other.
#[derive(Default)]
pub(crate) struct Observer {
    steady_since: BTreeMap<NodeId, Instant>,
    silent_since: BTreeMap<NodeId, Instant>,
}

impl Observer {
    pub(crate) async fn act(&mut self, store: &Store) {
        let status = store.status();
        let view = store.view();
        self.observe(&status);
        let group = self.group(&status, &view.state);
        // What was left half done comes first: two sets in force bear fewer losses than one.
        let unfinished = status.unfinished.clone().map(Change::Voters);
        let Some(change) = unfinished.or_else(|| next_change(&group)) else { return };
        let address = |node| view.state.nodes.get(&node).map(|row| row.peer_address.clone());
        let made = match &change {
            Change::Add(node) => match address(*node) {
                Some(address) => store.add_learner(*node, &address).await,
                None => return,
            },
            Change::Voters(voters) => store.set_voters(voters.clone()).await,
            Change::Remove(node) => store.remove_peer(*node).await,
            Change::StepDown(to) => store.transfer_leader(*to).await,
        };
        match made {
            Ok(()) => tracing::info!(?change, "the group changed"),
            Err(error) => tracing::warn!(?change, %error, "the group did not change"),
        }
    }

    fn observe(&mut self, status: &Status) {
        let now = Instant::now();
        for (node, follower) in &status.followers {
            let matched = follower.matched.map_or(0, |at| at.index);
            let near = matched + LAG_MAX >= status.last_index.unwrap_or(0);
            let heard = follower.silent_ms.is_some_and(|ms| ms <= SILENCE_MS_MAX);
            if near && heard {
                self.steady_since.entry(*node).or_insert(now);
            } else {
                self.steady_since.remove(node);
            }
            if heard {
                self.silent_since.remove(node);
            } else {
                self.silent_since.entry(*node).or_insert(now);
            }
        }
        self.steady_since.retain(|node, _| status.followers.contains_key(node));
        self.silent_since.retain(|node, _| status.followers.contains_key(node));
    }

    fn group(&self, status: &Status, state: &State) -> Group {
        let grace = Duration::from_millis(state.setting(Key::VoterGraceMs));
        let longer = |since: &BTreeMap<NodeId, Instant>, than: Duration| {
            let past = since.iter().filter(|(_, since)| since.elapsed() >= than);
            past.map(|(node, _)| *node).collect::<BTreeSet<_>>()
        };
        let lost = longer(&self.silent_since, grace);
        Group {
            me: status.node,
            members: state.nodes.keys().copied().collect(),
            voters: status.voters.clone(),
            learners: status.learners.clone(),
            steady: longer(&self.steady_since, STEADY),
            lost: lost.intersection(&status.voters).copied().collect(),
            voters_max: usize::try_from(state.setting(Key::VotersMax)).unwrap_or(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nodes: &[NodeId]) -> BTreeSet<NodeId> {
        nodes.iter().copied().collect()
    }

    /// Members, voters, learners, steady, lost, and the change that is due, with `voters-max` 3.
    #[test]
    fn the_table() {
        let voters = |nodes: &[NodeId]| Some(Change::Voters(set(nodes)));
        type Row<'a> = (&'a [u64], &'a [u64], &'a [u64], &'a [u64], &'a [u64], Option<Change>);
        let table: &[Row] = &[
            // At rest.
            (&[1], &[1], &[], &[], &[], None),
            (&[1, 2, 3], &[1, 2, 3], &[], &[2, 3], &[], None),
            // A member joins, follows, keeps up, votes.
            (&[1, 2], &[1], &[], &[], &[], Some(Change::Add(2))),
            (&[1, 2], &[1], &[2], &[], &[], None),
            (&[1, 2], &[1], &[2], &[2], &[], voters(&[1, 2])),
            // There are votes enough.
            (&[1, 2, 3, 4], &[1, 2, 3], &[4], &[2, 3, 4], &[], None),
            // A lost voter is replaced, but only by one that keeps up.
            (&[1, 2, 3, 4], &[1, 2, 3], &[4], &[2], &[3], None),
            (&[1, 2, 3, 4], &[1, 2, 3], &[4], &[2, 4], &[3], voters(&[1, 2, 4])),
            // A removed node loses its vote, then its place.
            (&[1, 2], &[1, 2, 3], &[], &[2, 3], &[], voters(&[1, 2])),
            (&[1, 2], &[1, 2], &[3], &[2], &[], Some(Change::Remove(3))),
            // The leader itself was removed.
            (&[2, 3], &[1, 2, 3], &[], &[3], &[], Some(Change::StepDown(3))),
            (&[2, 3], &[1, 2, 3], &[], &[], &[], None),
            // The setting was lowered: a lost one goes first, the leader never.
            (&[1, 2, 3, 4], &[1, 2, 3, 4], &[], &[3, 4], &[2], voters(&[1, 3, 4])),
            (&[1, 2, 3, 4], &[1, 2, 3, 4], &[], &[2, 3, 4], &[], voters(&[1, 2, 3])),
        ];
        for (members, voting, learners, steady, lost, expected) in table {
            let group = Group {
                me: 1,
                members: set(members),
                voters: set(voting),
                learners: set(learners),
                steady: set(steady),
                lost: set(lost),
                voters_max: 3,
            };
            assert_eq!(next_change(&group), *expected, "{group:?}");
        }
    }
}
