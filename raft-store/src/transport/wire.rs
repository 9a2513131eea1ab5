//! The bodies of the messages between nodes, in the encoding of [`domain::codec`].

use bytes::Bytes;
use domain::{
    codec,
    envelope::{Command, Outcome, Request},
    id::NodeId,
    principal::Principal,
    rejected::Rejected,
    trace::Trace,
};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use proto::peer::Frame;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tonic::Status;

use crate::{
    snapshot::Header,
    types::{Ballot, LogEntry, Position, TypeConfig},
};

pub(crate) fn pack<T: Serialize>(body: &T) -> Frame {
    Frame { body: Bytes::from(codec::encode(body)) }
}

pub(crate) fn unpack<T: DeserializeOwned>(frame: &Frame) -> Result<T, Status> {
    codec::decode(&frame.body).map_err(|error| Status::invalid_argument(error.to_string()))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Append {
    ballot: Ballot,
    previous: Option<Position>,
    entries: Vec<LogEntry>,
    committed: Option<Position>,
}

impl Append {
    pub(crate) fn of(request: AppendEntriesRequest<TypeConfig>) -> Append {
        Append {
            ballot: request.vote.into(),
            previous: request.prev_log_id.map(Into::into),
            entries: request.entries.into_iter().map(LogEntry::of).collect(),
            committed: request.leader_commit.map(Into::into),
        }
    }

    pub(crate) fn into_request(self) -> std::io::Result<AppendEntriesRequest<TypeConfig>> {
        let entries =
            self.entries.into_iter().map(LogEntry::into_entry).collect::<Result<_, _>>()?;
        Ok(AppendEntriesRequest {
            vote: self.ballot.into(),
            prev_log_id: self.previous.map(Into::into),
            entries,
            leader_commit: self.committed.map(Into::into),
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Appended {
    Upto(Option<Position>),
    Conflict(Position),
    HigherVote(Ballot),
}

impl Appended {
    pub(crate) fn of(result: StreamAppendResult<TypeConfig>) -> Appended {
        match result {
            Ok(upto) => Appended::Upto(upto.map(Into::into)),
            Err(StreamAppendError::Conflict(at)) => Appended::Conflict(at.into()),
            Err(StreamAppendError::HigherVote(vote)) => Appended::HigherVote(vote.into()),
        }
    }

    pub(crate) fn into_result(self) -> StreamAppendResult<TypeConfig> {
        match self {
            Appended::Upto(upto) => Ok(upto.map(Into::into)),
            Appended::Conflict(at) => Err(StreamAppendError::Conflict(at.into())),
            Appended::HigherVote(ballot) => Err(StreamAppendError::HigherVote(ballot.into())),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskVote {
    pub(crate) pre: bool,
    ballot: Ballot,
    last: Option<Position>,
    transfer: bool,
}

impl AskVote {
    pub(crate) fn of(request: &VoteRequest<TypeConfig>, pre: bool) -> AskVote {
        AskVote {
            pre,
            ballot: request.vote.into(),
            last: request.last_log_id.map(Into::into),
            transfer: request.leadership_transfer,
        }
    }

    pub(crate) fn into_request(self) -> VoteRequest<TypeConfig> {
        let mut request = VoteRequest::new(self.ballot.into(), self.last.map(Into::into));
        request.leadership_transfer = self.transfer;
        request
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Voted {
    ballot: Ballot,
    granted: bool,
    last: Option<Position>,
}

impl Voted {
    pub(crate) fn of(response: &VoteResponse<TypeConfig>) -> Voted {
        Voted {
            ballot: response.vote.into(),
            granted: response.vote_granted,
            last: response.last_log_id.map(Into::into),
        }
    }

    pub(crate) fn into_response(self) -> VoteResponse<TypeConfig> {
        VoteResponse {
            vote: self.ballot.into(),
            vote_granted: self.granted,
            last_log_id: self.last.map(Into::into),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnnounceSnapshot {
    pub(crate) ballot: Ballot,
    pub(crate) header: Header,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TransferLeader {
    from: Ballot,
    to: NodeId,
    last: Option<Position>,
}

impl TransferLeader {
    pub(crate) fn of(request: &TransferLeaderRequest<TypeConfig>) -> TransferLeader {
        TransferLeader {
            from: (*request.from_leader()).into(),
            to: *request.to_node_id(),
            last: request.last_log_id().copied().map(Into::into),
        }
    }

    pub(crate) fn into_request(self) -> TransferLeaderRequest<TypeConfig> {
        TransferLeaderRequest::new(self.from.into(), self.to, self.last.map(Into::into))
    }
}

/// A command on its way to the leader, who stamps the time.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Propose {
    pub(crate) principal: Principal,
    pub(crate) request: Option<Request>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trace: Option<Trace>,
    pub(crate) command: Command,
}

/// What became of a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Proposed {
    Accepted(Outcome),
    Rejected(Rejected),
    /// It was not done; somebody else may do it.
    NotLeader(Option<NodeId>),
    /// It was not done, and cannot be at present.
    Unavailable(String),
    /// It may have been done.
    Unknown(String),
}

/// Whether a node has promised itself to nobody after a ballot.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Confirm {
    pub(crate) number: u64,
    pub(crate) ballot: Ballot,
}

/// The answer.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Confirmed {
    /// Of the question.
    pub(crate) number: u64,
    pub(crate) holds: bool,
}

/// From which entry on a read is linearizable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ReadFrom {
    Entry(Option<Position>),
    NotLeader(Option<NodeId>),
    Unavailable(String),
}
