//! Calls to other nodes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
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
use tokio::{io::AsyncReadExt, net::TcpStream, sync::watch};
use tokio_rustls::TlsConnector;
use tokio_stream::Stream;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

use super::{HEADER, MESSAGE_BYTES_MAX, Me, REMOVED, wire};
use crate::{
    identity,
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
    tls: TlsConnector,
    channels: Mutex<BTreeMap<(NodeId, Traffic), (String, Channel)>>,
    /// Becomes true when a peer says that this node was removed.
    removed: watch::Sender<bool>,
    views: watch::Receiver<Arc<View>>,
}

impl Pool {
    pub(crate) fn new(
        me: Me,
        tls: rustls::ClientConfig,
        removed: watch::Sender<bool>,
        views: watch::Receiver<Arc<View>>,
    ) -> Pool {
        let tls = TlsConnector::from(Arc::new(tls));
        Pool { me, tls, channels: Mutex::default(), removed, views }
    }

    /// Where a node is reached: as it reported last, else as it joined.
    pub(crate) fn address(&self, node: NodeId) -> Option<String> {
        let view = self.views.borrow();
        let reported = view.state.nodes.get(&node).map(|member| member.peer_address.clone());
        reported.or_else(|| view.members.peers.get(&node).map(|peer| peer.address.clone()))
    }

    /// A client for `node` at `address`; it connects when it is used.
    pub(crate) fn client(
        &self,
        node: NodeId,
        address: &str,
    ) -> Result<PeerClient<Channel>, Status> {
        self.client_for(Traffic::Raft, node, address)
    }

    pub(crate) fn client_for(
        &self,
        traffic: Traffic,
        node: NodeId,
        address: &str,
    ) -> Result<PeerClient<Channel>, Status> {
        let key = (node, traffic);
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match channels.get(&key) {
            Some((known, channel)) if known == address => channel.clone(),
            Some(_) | None => {
                let channel = self.connect(node, address)?;
                channels.insert(key, (address.to_owned(), channel.clone()));
                channel
            }
        };
        Ok(PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn connect(&self, node: NodeId, address: &str) -> Result<Channel, Status> {
        let invalid = |error: &dyn std::fmt::Display| Status::unavailable(error.to_string());
        let name = identity::server_name(self.me.cluster, node).map_err(|error| invalid(&error))?;
        let (tls, address) = (self.tls.clone(), address.to_owned());
        let connector = tower::service_fn(move |_: tonic::transport::Uri| {
            let (tls, name, address) = (tls.clone(), name.clone(), address.clone());
            async move {
                let tcp = TcpStream::connect(&address).await?;
                tcp.set_nodelay(true)?;
                let tls = tls.connect(name, tcp).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(tls))
            }
        });
        let endpoint = Endpoint::from_static("http://peer")
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        Ok(endpoint.connect_with_connector_lazy(connector))
    }

    /// A request to `node` with our header.
    pub(crate) fn request<T>(&self, node: NodeId, body: T) -> Request<T> {
        let mut request = Request::new(body);
        request
            .metadata_mut()
            .insert_bin(HEADER, self.me.header(node, self.views.borrow().state.epoch));
        request
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
        Connection { pool: self.0.clone(), node: target, address: peer.address.clone() }
    }
}

/// What openraft sends to one node.
pub(crate) struct Connection {
    pool: Arc<Pool>,
    node: NodeId,
    address: String,
}

impl Connection {
    fn client(&self) -> Result<PeerClient<Channel>, Rpc> {
        // A node may have moved since it became a member.
        let address = self.pool.address(self.node).unwrap_or_else(|| self.address.clone());
        self.pool.client(self.node, &address).map_err(|status| self.failed(&status))
    }

    /// A failed call. openraft retries a network error at once, many times, and backs off from what
    /// it cannot reach: a call that failed is the latter.
    fn failed(&self, status: &Status) -> Rpc {
        self.pool.heed(status);
        RPCError::Unreachable(Unreachable::new(status))
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
        let answer = self.client()?.vote(request).await.map_err(|status| self.failed(&status))?;
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
            let frames = input.map(|request| wire::pack(&wire::Append::of(request)));
            let request = self.pool.request(self.node, frames);
            let answers =
                self.client()?.append(request).await.map_err(|status| self.failed(&status))?;
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
        let reader = tokio::fs::File::open(&file.path).await.map_err(|error| {
            // It may have been replaced by a newer one: openraft asks for the current one again.
            StreamingError::Network(NetworkError::new(&error))
        })?;
        let pieces = stream::unfold(reader, |mut reader| async move {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            // A read error ends the stream early, and the receiver finds the file cut.
            let count =
                (&mut reader).take(PIECE_BYTES as u64).read_to_end(&mut piece).await.ok()?;
            (count > 0).then(|| (Frame { body: piece.into() }, reader))
        });
        let frames = stream::iter([wire::pack(&first)]).chain(pieces);
        let mut request = self.pool.request(self.node, frames);
        request.set_timeout(option.hard_ttl());
        let mut client = self.client()?;
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
            self.client()?.transfer_leader(request).await.map_err(|status| self.failed(&status))?;
        let accepted: bool =
            wire::unpack(answer.get_ref()).map_err(|status| self.failed(&status))?;
        if accepted {
            return Ok(Ok(()));
        }
        Err(RPCError::Unreachable(Unreachable::from_string("it does not take the leadership")))
    }
}
