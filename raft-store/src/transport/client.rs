//! Calls to other nodes.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use domain::id::NodeId;
use futures_util::{StreamExt, stream};
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    base::{BoxFuture, BoxStream},
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use proto::peer::{Frame, peer_client::PeerClient};
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

use super::{HEADER, MESSAGE_BYTES_MAX, Me, REMOVED, wire};
use crate::{
    ground::Ground,
    machine::SnapshotContent,
    types::{Ballot, Peer, TypeConfig, Vote},
    view::View,
};

const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How soon a connection to a dead peer is noticed: streams of entries wait without a deadline.
const KEEPALIVE_INTERVAL: Duration = Duration::from_millis(1_000);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_millis(2_000);
/// Bytes of a piece of a snapshot.
const PIECE_BYTES: usize = 1 << 20;

type Rpc = RPCError<TypeConfig>;

/// What a connection carries. Files have one of their own: heartbeats must not wait behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Traffic {
    Raft,
    Files,
}

/// Connections to other nodes, one per node, kind of traffic and address.
pub(crate) struct Pool {
    me: Me,
    pub(crate) ground: Ground,
    channels: Mutex<BTreeMap<(NodeId, Traffic), (String, Channel)>>,
    /// Becomes true when a peer says that this node was removed.
    pub(crate) removed: watch::Sender<bool>,
    /// The newest entry of which anybody was told, as a leader's followers are, that it is committed.
    told: AtomicU64,
    views: watch::Receiver<Arc<View>>,
}

impl Pool {
    pub(crate) fn new(me: Me, ground: Ground, views: watch::Receiver<Arc<View>>) -> Pool {
        let removed = watch::Sender::new(false);
        let (channels, told) = (Mutex::default(), AtomicU64::new(0));
        Pool { me, ground, channels, removed, told, views }
    }

    /// Where a node is reached: as it reported last, else as it joined.
    pub(crate) fn address(&self, node: NodeId) -> Option<String> {
        let view = self.views.borrow();
        let reported = view.state.nodes.get(&node).map(|member| member.peer_address.clone());
        reported.or_else(|| view.members.peers.get(&node).map(|peer| peer.address.clone()))
    }

    /// A client for `node` at `address`; it connects when it is used.
    pub(crate) fn client(&self, node: NodeId, address: &str) -> PeerClient<Channel> {
        self.client_for(Traffic::Raft, node, address)
    }

    pub(crate) fn client_for(
        &self,
        traffic: Traffic,
        node: NodeId,
        address: &str,
    ) -> PeerClient<Channel> {
        let key = (node, traffic);
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match channels.get(&key) {
            Some((known, channel)) if known == address => channel.clone(),
            Some(_) | None => {
                let channel = self.connect(node, address);
                channels.insert(key, (address.to_owned(), channel.clone()));
                channel
            }
        };
        PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn connect(&self, node: NodeId, address: &str) -> Channel {
        let (dial, address) = (self.ground.dial.clone(), address.to_owned());
        let connector = tower::service_fn(move |_: tonic::transport::Uri| {
            let wire = dial.dial(node, address.clone());
            async move { Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(wire.await?)) }
        });
        let endpoint = Endpoint::from_static("http://peer")
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        endpoint.connect_with_connector_lazy(connector)
    }

    /// A request to `node` with our header.
    pub(crate) fn request<T>(&self, node: NodeId, body: T) -> Request<T> {
        let mut request = Request::new(body);
        request
            .metadata_mut()
            .insert_bin(HEADER, self.me.header(node, self.views.borrow().state.epoch));
        request
    }

    /// The index of the newest entry of which this node has told anybody that it is committed. Others may have applied it
    /// before this one does.
    pub(crate) fn told(&self) -> u64 {
        self.told.load(Ordering::SeqCst)
    }

    /// Takes note of what is about to be told.
    fn tells(&self, request: &AppendEntriesRequest<TypeConfig>) {
        if let Some(committed) = &request.leader_commit {
            self.told.fetch_max(committed.index, Ordering::SeqCst);
        }
    }

    /// Takes note of what a refusal says about us.
    pub(crate) fn heed(&self, status: &Status) {
        if status.metadata().contains_key(REMOVED) {
            self.removed.send_replace(true);
        }
    }
}

/// Makes connections for openraft.
pub(crate) struct Network(pub(crate) Arc<Pool>);

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: NodeId, peer: &Peer) -> Connection {
        let (address, failures) = (peer.address.clone(), 0);
        Connection { pool: self.0.clone(), node: target, address, failures }
    }
}

/// What openraft sends to one node.
pub(crate) struct Connection {
    pool: Arc<Pool>,
    node: NodeId,
    address: String,
    /// Streams in a row that could not be begun.
    failures: u32,
}

impl Connection {
    fn client(&self) -> PeerClient<Channel> {
        // A node may have moved since it became a member.
        let address = self.pool.address(self.node).unwrap_or_else(|| self.address.clone());
        self.pool.client(self.node, &address)
    }

    /// A failed call. openraft retries a network error at once, many times, and backs off from what
    /// it cannot reach: a call that failed is the latter.
    fn failed(&self, status: &Status) -> Rpc {
        self.pool.heed(status);
        RPCError::Unreachable(Unreachable::new(status))
    }

    /// Waits for a while after a stream could not be begun. openraft's own pauses are in what it sends: who
    /// refuses the connection is asked for nothing, and the next attempt would come at once, without end.
    async fn rest(&mut self) {
        const LEAST_MS: u64 = 10;
        const MOST_MS: u64 = 500;
        let most_ms = (LEAST_MS << self.failures.min(10)).min(MOST_MS);
        self.failures = self.failures.saturating_add(1);
        tokio::time::sleep(Duration::from_millis(fastrand::u64(most_ms / 2..=most_ms))).await;
    }

    async fn vote_as(
        &self,
        request: &VoteRequest<TypeConfig>,
        pre: bool,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Rpc> {
        let frame = wire::pack(&wire::AskVote::of(request, pre));
        let mut request = self.pool.request(self.node, frame);
        request.set_timeout(option.hard_ttl());
        let answer = self.client().vote(request).await.map_err(|status| self.failed(&status))?;
        let answer: wire::Voted =
            wire::unpack(answer.get_ref()).map_err(|status| self.failed(&status))?;
        Ok(answer.into_response())
    }
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = SnapshotContent;

    /// openraft only ever streams; one request is a stream of one.
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Rpc> {
        let mut answers = self.stream_append(stream::iter([request]), option).await?;
        match answers.next().await {
            Some(Ok(Ok(upto))) => Ok(AppendEntriesResponse::PartialSuccess(upto)),
            Some(Ok(Err(openraft::raft::StreamAppendError::Conflict(_)))) => {
                Ok(AppendEntriesResponse::Conflict)
            }
            Some(Ok(Err(openraft::raft::StreamAppendError::HigherVote(vote)))) => {
                Ok(AppendEntriesResponse::HigherVote(vote))
            }
            Some(Err(error)) => Err(error),
            None => Err(RPCError::Network(NetworkError::from_string("no answer"))),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, Rpc>>, Rpc>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let pool = self.pool.clone();
            let frames = input.map(move |request| {
                pool.tells(&request);
                wire::pack(&wire::Append::of(request))
            });
            let request = self.pool.request(self.node, frames);
            let answers = match self.client().append(request).await {
                Ok(answers) => answers,
                Err(status) => {
                    let error = self.failed(&status);
                    self.rest().await;
                    return Err(error);
                }
            };
            self.failures = 0;
            let this = &*self;
            let answers = answers.into_inner().map(move |answer| {
                let frame = answer.map_err(|status| this.failed(&status))?;
                let answer: wire::Appended =
                    wire::unpack(&frame).map_err(|status| this.failed(&status))?;
                Ok(answer.into_result())
            });
            Ok(Box::pin(answers) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Rpc> {
        self.vote_as(&request, false, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Rpc> {
        self.vote_as(&request, true, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<TypeConfig, SnapshotContent>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let file = snapshot.snapshot.file;
        let first = wire::AnnounceSnapshot { ballot: vote.into(), header: file.header.clone() };
        let aside = self.pool.ground.aside;
        let opened = aside.run(move || File::open(&file.path)).await.and_then(|opened| opened);
        let reader = opened.map_err(|error| {
            // It may have been replaced by a newer one: openraft asks for the current one again.
            StreamingError::Network(NetworkError::new(&error))
        })?;
        let pieces = stream::unfold(reader, move |mut reader| async move {
            let read = aside.run(move || {
                let mut piece = Vec::with_capacity(PIECE_BYTES);
                let count = (&mut reader).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
                Ok::<_, std::io::Error>((count > 0).then_some((piece, reader)))
            });
            // A read error ends the stream early, and the receiver finds the file cut.
            let (piece, reader) = read.await.ok()?.ok()??;
            Some((Frame { body: piece.into() }, reader))
        });
        let frames = stream::iter([wire::pack(&first)]).chain(pieces);
        let mut request = self.pool.request(self.node, frames);
        request.set_timeout(option.hard_ttl());
        let mut client = self.client();
        let answer = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            answer = client.snapshot(request) => answer.map_err(|status| self.failed(&status))?,
        };
        let ballot: Ballot =
            wire::unpack(answer.get_ref()).map_err(|status| self.failed(&status))?;
        Ok(SnapshotResponse::new(ballot.into()))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Rpc> {
        let frame = wire::pack(&wire::TransferLeader::of(&request));
        let mut request = self.pool.request(self.node, frame);
        request.set_timeout(option.hard_ttl());
        let answer =
            self.client().transfer_leader(request).await.map_err(|status| self.failed(&status))?;
        let accepted: bool =
            wire::unpack(answer.get_ref()).map_err(|status| self.failed(&status))?;
        if accepted {
            return Ok(Ok(()));
        }
        Err(RPCError::Unreachable(Unreachable::from_string("it does not take the leadership")))
    }
}
