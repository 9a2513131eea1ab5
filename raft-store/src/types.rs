//! What openraft is told about us, and the plain forms in which its values are written and sent.
//!
//! openraft's own serialised forms change between releases; ours are these, with the encoding rules
//! of [`domain::codec`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use domain::{envelope::Outcome, id::NodeId, rejected::Rejected};
use openraft::{EntryPayload, alias, impls::leader_id_adv::LeaderId};
use serde::{Deserialize, Serialize};

/// An encoded [`domain::envelope::Envelope`]: encoded once by the proposer, decoded where it is
/// applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal(pub Bytes);

impl std::fmt::Display for Proposal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The answer to a proposal; entries that carry none are answered with nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer(pub Option<Result<Outcome, Rejected>>);

/// Where a peer is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// `host:port` of its peer listener.
    pub address: String,
}

openraft::declare_raft_types!(
    /// Our type configuration.
    pub TypeConfig:
        D = Proposal,
        R = Answer,
        NodeId = u64,
        Node = Peer,
        AsyncRuntime = crate::runtime::Runtime,
);

pub(crate) type Entry = alias::EntryOf<TypeConfig>;
pub(crate) type LogId = alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = alias::VoteOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<NodeId, Peer>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;

/// A position in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The leader's term.
    pub term: u64,
    /// The leader.
    pub node: NodeId,
    /// The index.
    pub index: u64,
}

impl From<LogId> for Position {
    fn from(id: LogId) -> Position {
        Position { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
    }
}

impl From<Position> for LogId {
    fn from(position: Position) -> LogId {
        let leader_id = LeaderId { term: position.term, node_id: position.node };
        openraft::LogId { leader_id, index: position.index }
    }
}

/// A vote, given or confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ballot {
    /// The term.
    pub term: u64,
    /// The candidate.
    pub node: NodeId,
    /// Whether a quorum has granted it.
    pub committed: bool,
}

impl From<Vote> for Ballot {
    fn from(vote: Vote) -> Ballot {
        Ballot {
            term: vote.leader_id.term,
            node: vote.leader_id.node_id,
            committed: vote.committed,
        }
    }
}

impl From<Ballot> for Vote {
    fn from(ballot: Ballot) -> Vote {
        let leader_id = LeaderId { term: ballot.term, node_id: ballot.node };
        openraft::Vote { leader_id, committed: ballot.committed }
    }
}

/// Who belongs to the group: one set of voters, or two while it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Members {
    /// The voters.
    pub voters: Vec<BTreeSet<NodeId>>,
    /// Voters and learners.
    pub peers: BTreeMap<NodeId, Peer>,
}

impl From<&Membership> for Members {
    fn from(membership: &Membership) -> Members {
        Members {
            voters: membership.get_joint_config().clone(),
            peers: membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect(),
        }
    }
}

impl TryFrom<Members> for Membership {
    type Error = std::io::Error;
    fn try_from(members: Members) -> Result<Membership, std::io::Error> {
        if members.voters.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(members.voters, members.peers).map_err(|error| {
            std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string())
        })
    }
}

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing: a new leader's first entry.
    Blank,
    /// A proposal.
    Proposal(Bytes),
    /// A change of the group.
    Members(Members),
}

/// A log entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// Where it stands.
    pub at: Position,
    /// What it carries.
    pub payload: Payload,
}

impl LogEntry {
    /// About as many bytes as it takes, in memory and in a message.
    pub(crate) fn bytes(&self) -> usize {
        match &self.payload {
            Payload::Blank => 64,
            Payload::Proposal(bytes) => bytes.len() + 64,
            Payload::Members(_) => 1024,
        }
    }

    pub(crate) fn of(entry: Entry) -> LogEntry {
        let payload = match entry.payload {
            EntryPayload::Blank => Payload::Blank,
            EntryPayload::Normal(proposal) => Payload::Proposal(proposal.0),
            EntryPayload::Membership(membership) => Payload::Members(Members::from(&membership)),
        };
        LogEntry { at: entry.log_id.into(), payload }
    }

    pub(crate) fn into_entry(self) -> Result<Entry, std::io::Error> {
        let payload = match self.payload {
            Payload::Blank => EntryPayload::Blank,
            Payload::Proposal(bytes) => EntryPayload::Normal(Proposal(bytes)),
            Payload::Members(members) => EntryPayload::Membership(members.try_into()?),
        };
        Ok(openraft::Entry { log_id: self.at.into(), payload })
    }
}
