//! Proposing: here when this node leads, else through the leader, one hop and no further.

use std::{path::PathBuf, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use domain::{
    codec,
    envelope::{Command, Envelope, Outcome, Request},
    id::NodeId,
    limit,
    principal::Principal,
    rejected::{Reason, Rejected},
};
use openraft::{
    async_runtime::WatchReceiver,
    errors::{ClientWriteError, RaftError},
};
use telemetry::trace::Span;
use tokio::{sync::watch, time::Instant};

use super::{Timing, confirm::Confirmer, read::Probe};
use crate::{
    clock::LeaseClock,
    ground::Ground,
    machine::Machine,
    metrics::{LeaderChecks, Proposals},
    transport::{
        Me, Pool,
        wire::{self, Propose, Proposed},
    },
    types::{Answer, Proposal, TypeConfig},
    view::View,
    wal::Journal,
};

/// What became of a proposal that was not accepted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    /// It was decided against; nothing was changed.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// It was not done: the cluster cannot decide at present.
    #[error("the cluster cannot decide at present: {0}")]
    Unavailable(String),
    /// It may have been done. With a request id it can be asked again safely.
    #[error("it is not known whether this was done: {0}")]
    Unknown(String),
}

type Raft = openraft::Raft<TypeConfig, Machine>;

/// What the listener reads from and writes to.
pub(crate) struct Folders {
    pub(crate) snapshots: PathBuf,
    /// See [`super::Options::shared`].
    pub(crate) shared: PathBuf,
}

/// What the store and its listeners share.
pub(crate) struct Core {
    pub(crate) me: Me,
    pub(crate) raft: Raft,
    pub(crate) views: watch::Receiver<Arc<View>>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) folders: Folders,
    pub(crate) ground: Ground,
    pub(super) timing: Timing,
    pub(super) probe: Probe,
    pub(crate) log: Arc<dyn Journal>,
    pub(super) confirmer: Confirmer,
    pub(super) checks: LeaderChecks,
    proposals: Proposals,
    clock: LeaseClock,
}

impl Core {
    pub(crate) fn new(
        me: Me,
        raft: Raft,
        views: watch::Receiver<Arc<View>>,
        pool: Arc<Pool>,
        folders: Folders,
        timing: Timing,
        log: Arc<dyn Journal>,
    ) -> Core {
        let ground = pool.ground.clone();
        let confirmer = Confirmer::start(me.node, pool.clone(), log.clone());
        let (probe, clock) = (Probe::default(), LeaseClock::new(ground.clocks));
        let proposals = Proposals::new();
        Core {
            me,
            raft,
            views,
            pool,
            folders,
            ground,
            timing,
            probe,
            log,
            confirmer,
            checks: LeaderChecks::new(),
            proposals,
            clock,
        }
    }

    /// Proposes until it is known what became of it or the time is up.
    pub(super) async fn propose(
        &self,
        principal: Principal,
        request: Option<Request>,
        command: Command,
    ) -> Result<Outcome, ProposeError> {
        let deadline = Instant::now() + self.timing.deadline;
        let safe_to_repeat = request.is_some();
        let trace = telemetry::trace::current();
        let propose = Propose { principal, request, trace, command };
        let mut hint = None;
        let mut pauses = pauses();
        let mut unsure = None;
        loop {
            let attempt = self.propose_once(propose.clone(), hint.take());
            let proposed = match tokio::time::timeout_at(deadline, attempt).await {
                Ok(proposed) => proposed,
                Err(_) => Proposed::Unknown("no answer in time".to_owned()),
            };
            let why = match proposed {
                Proposed::Accepted(outcome) => return Ok(outcome),
                // An earlier attempt may still be under way, and be accepted after this refusal.
                Proposed::Rejected(rejected) if unsure.is_some() => {
                    unsure = Some(format!("an attempt was lost, the next was refused: {rejected}"));
                    rejected.to_string()
                }
                Proposed::Rejected(rejected) => return Err(rejected.into()),
                Proposed::NotLeader(leader) => {
                    hint = leader;
                    "there is no leader".to_owned()
                }
                Proposed::Unavailable(why) => why,
                Proposed::Unknown(why) if safe_to_repeat => {
                    unsure = Some(why.clone());
                    why
                }
                Proposed::Unknown(why) => return Err(ProposeError::Unknown(why)),
            };
            let next = Instant::now() + pauses.next().unwrap_or_default();
            if next >= deadline {
                return Err(match unsure {
                    Some(why) => ProposeError::Unknown(why),
                    None => ProposeError::Unavailable(why),
                });
            }
            tokio::time::sleep_until(next).await;
        }
    }

    async fn propose_once(&self, propose: Propose, hint: Option<NodeId>) -> Proposed {
        let leader = match hint {
            Some(leader) => Some(leader),
            None => self.leader(),
        };
        match leader {
            Some(leader) if leader == self.me.node => self.propose_here(propose).await,
            Some(leader) => self.propose_at(leader, &propose).await,
            None => Proposed::NotLeader(None),
        }
    }

    /// Proposes through the leader.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum is another crate's")]
    async fn propose_at(&self, leader: NodeId, propose: &Propose) -> Proposed {
        let Some(address) = self.pool.address(leader) else { return Proposed::NotLeader(None) };
        let mut request = self.pool.request(leader, wire::pack(propose));
        request.set_timeout(self.timing.deadline);
        match self.pool.client(leader, &address).propose(request).await {
            Ok(answer) => wire::unpack(answer.get_ref())
                .unwrap_or_else(|status| Proposed::Unknown(status.message().to_owned())),
            Err(status) => {
                self.pool.heed(&status);
                let why = format!("node {leader}: {}", status.message());
                // A refusal was not done. A broken connection may have broken after the command
                // arrived.
                match status.code() {
                    tonic::Code::PermissionDenied | tonic::Code::InvalidArgument => {
                        Proposed::Unavailable(why)
                    }
                    _ => Proposed::Unknown(why),
                }
            }
        }
    }

    /// Proposes as the leader.
    pub(crate) async fn propose_here(&self, propose: Propose) -> Proposed {
        let begun = std::time::Instant::now();
        let mut span = propose.trace.and_then(|asked| Span::below(asked, "raft.commit"));
        let proposed = self.decide(propose).await;
        self.proposals.note(&proposed, begun.elapsed());
        if let Some(span) = &mut span {
            note(span, &proposed);
        }
        proposed
    }

    async fn decide(&self, propose: Propose) -> Proposed {
        let Some(at_ms) = self.stamp() else {
            return match self.leader() {
                Some(leader) if leader == self.me.node => {
                    Proposed::Unavailable("a new leader is taking over".to_owned())
                }
                leader => Proposed::NotLeader(leader),
            };
        };
        let envelope = Envelope {
            at_ms,
            wall_ms: (self.ground.clocks.wall_ms)(),
            principal: propose.principal,
            request: propose.request,
            trace: propose.trace,
            command: propose.command,
        };
        let bytes = codec::encode(&envelope);
        if bytes.len() > limit::COMMAND_BYTES_MAX {
            let message = format!(
                "the command takes {} bytes; at most {} are allowed",
                bytes.len(),
                limit::COMMAND_BYTES_MAX
            );
            return Proposed::Rejected(Rejected::new(Reason::TooLarge, message));
        }
        // Copied to its own size: it stays in memory for as long as the log does.
        match self.raft.client_write(Proposal(Bytes::copy_from_slice(&bytes))).await {
            Ok(response) => match response.data {
                Answer(Some(Ok(outcome))) => Proposed::Accepted(outcome),
                Answer(Some(Err(rejected))) => Proposed::Rejected(rejected),
                Answer(None) => Proposed::Unknown("the entry was answered by another".to_owned()),
            },
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                match forward.leader_id {
                    Some(leader) => Proposed::NotLeader(Some(leader)),
                    None => Proposed::Unavailable("the leader has no quorum".to_owned()),
                }
            }
            Err(error) => Proposed::Unknown(error.to_string()),
        }
    }

    /// Lease time, if this node leads and has applied an entry of its own: the term alone does not tell, since
    /// another one may have led in it before.
    fn stamp(&self) -> Option<u64> {
        let term = self.leading_term()?;
        let view = self.views.borrow().clone();
        let applied = view.at.is_some_and(|at| (at.term, at.node) == (term, self.me.node));
        applied.then(|| self.clock.stamp(term, view.state.now_ms))
    }

    /// The term in which this node leads, if it does.
    pub(super) fn leading_term(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.state == openraft::ServerState::Leader).then_some(metrics.current_term)
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        self.raft.metrics().borrow_watched().current_leader
    }

    pub(crate) async fn stopped(&self) -> String {
        // They change seldom, and end with it. The others change with every entry: who waited for them would be
        // woken each time.
        let mut seldom = self.raft.server_metrics();
        while seldom.changed().await.is_ok() {}
        match &self.raft.metrics().borrow_watched().running_state {
            Err(fatal) => fatal.to_string(),
            Ok(()) => "raft has ended".to_owned(),
        }
    }
}

/// Says in a trace what came of a proposal.
fn note(span: &mut Span, proposed: &Proposed) {
    match proposed {
        Proposed::Accepted(outcome) => span.say("novacron.revision", outcome.revision.to_string()),
        Proposed::Rejected(rejected) => span.fail(rejected.reason.code()),
        Proposed::NotLeader(_) => span.fail("not_leader"),
        Proposed::Unavailable(_) => span.fail("unavailable"),
        Proposed::Unknown(_) => span.fail("unknown"),
    }
}

/// Pauses between attempts: longer each time, with jitter, so that many callers do not come at once.
/// The caller's deadline ends them.
pub(super) fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(Duration::from_millis(500))
        .without_max_times()
        .with_jitter()
        .build()
}
