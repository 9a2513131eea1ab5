//! Calls from other nodes.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write as _,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use domain::{
    id::{ClusterId, Digest, NodeId},
    principal::Principal,
};
use futures_util::{Stream, StreamExt};
use newtype_uuid::GenericUuid;
use openraft::raft::SnapshotResponse;
use proto::peer::{
    Frame,
    peer_server::{Peer, PeerServer},
};
use tokio::{net::TcpListener, sync::watch};
use tonic::{Request, Response, Status, Streaming};

use super::{MESSAGE_BYTES_MAX, REMOVED, file, header_of, wire};
use crate::{
    identity,
    listener::{self, Limits},
    machine::SnapshotContent,
    snapshot,
    store::{Core, confirm},
    types::{Ballot, SnapshotMeta, StoredMembership},
};

/// Serves other nodes on `listener` until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: rustls::ServerConfig,
    core: Arc<Core>,
    stop: watch::Receiver<bool>,
) {
    listener::serve(listener, tls, routes(core), Limits::default(), stop).await;
}

/// What other nodes may call.
pub(crate) fn routes(core: Arc<Core>) -> tonic::service::Routes {
    let service = Service { core, boots: Mutex::default(), received: AtomicU64::new(0) };
    let service = PeerServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    tonic::service::Routes::new(service)
}

struct Service {
    core: Arc<Core>,
    /// The newest process of each node that has called.
    boots: Mutex<BTreeMap<NodeId, u64>>,
    received: AtomicU64,
}

impl Service {
    /// Checks who calls: the certificate, the header, and that both mean the same member.
    fn caller<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let me = &self.core.me;
        let denied = |what: &str| Status::permission_denied(what.to_owned());
        let header = header_of(request.metadata()).ok_or_else(|| denied("there is no header"))?;
        let node = identify(request, me.cluster).map_err(|why| denied(&why))?;
        if header.cluster[..] != me.cluster.into_untyped_uuid().as_bytes()[..] {
            return Err(denied("the caller belongs to another cluster"));
        }
        if header.from != node {
            return Err(denied("the certificate is another node's"));
        }
        if header.to != me.node {
            return Err(denied("another node is meant; its address was given to this one"));
        }
        if header.group != 0 {
            return Err(Status::unimplemented("there is only group 0"));
        }
        let view = self.core.views.borrow().clone();
        // While Raft still counts it, its vote may be needed to let it go.
        if view.state.is_removed(node) && !view.members.peers.contains_key(&node) {
            let mut status = denied("the node was removed from the cluster");
            status.metadata_mut().insert(REMOVED, tonic::metadata::MetadataValue::from_static("1"));
            return Err(status);
        }
        if let Some(member) = view.state.nodes.get(&node)
            && header.store[..] != member.store.into_untyped_uuid().as_bytes()[..]
        {
            return Err(denied("the node's data directory is not the one it joined with"));
        }
        // Who has just joined knows nothing yet, not even which epoch it is.
        let (mine, fresh) = (u32::from(view.state.epoch), view.state.cluster.is_none());
        let joined = header.epoch < mine && view.state.nodes.contains_key(&node);
        if header.epoch != mine && !fresh && !joined {
            return Err(denied("the caller is in another recovery epoch"));
        }
        let mut boots = self.boots.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = boots.entry(node).or_default();
        if header.boots < *newest {
            return Err(denied("a newer process of the node has called"));
        }
        *newest = header.boots;
        Ok(node)
    }

    /// Writes the pieces of a snapshot to a file of its own.
    async fn receive(&self, mut pieces: Streaming<Frame>) -> Result<Received, Status> {
        let number = self.received.fetch_add(1, Ordering::Relaxed);
        let received = Received(self.core.folders.snapshots.join(format!("received-{number}.tmp")));
        let io = |error: std::io::Error| Status::internal(error.to_string());
        let (aside, path) = (self.core.ground.aside, received.0.clone());
        let opened = aside.run(move || File::create(path)).await.and_then(|opened| opened);
        let file = Arc::new(opened.map_err(io)?);
        while let Some(piece) = pieces.message().await? {
            let file = file.clone();
            let written = aside.run(move || (&*file).write_all(&piece.body)).await;
            written.and_then(|written| written).map_err(io)?;
        }
        let synced = aside.run(move || file.sync_all()).await.and_then(|synced| synced);
        synced.map_err(io)?;
        Ok(received)
    }
}

/// A file that came over the network; it goes with this, unless it was given its name.
struct Received(PathBuf);

impl Drop for Received {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Whose connection it is.
fn identify<T>(request: &Request<T>, cluster: ClusterId) -> Result<NodeId, String> {
    #[cfg(feature = "simulation")]
    if let Some(caller) = request.extensions().get::<crate::simulation::Caller>() {
        return Ok(caller.0);
    }
    let certificates = request.peer_certs().unwrap_or_default();
    let leaf = certificates.first().ok_or("there is no certificate")?;
    identity::peer_node(leaf, cluster).map_err(|error| error.to_string())
}

fn fatal(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl Peer for Service {
    type AppendStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn append(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        self.caller(&request)?;
        // A frame that cannot be read ends the stream; the sender then tries anew.
        let requests = request.into_inner().scan((), |(), frame| {
            let request = frame
                .ok()
                .and_then(|frame| wire::unpack::<wire::Append>(&frame).ok()?.into_request().ok());
            std::future::ready(request)
        });
        let answers = self.core.raft.stream_append(requests).map(|answer| match answer {
            Ok(result) => Ok(wire::pack(&wire::Appended::of(result))),
            Err(error) => Err(fatal(error)),
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn vote(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        self.caller(&request)?;
        let ask: wire::AskVote = wire::unpack(request.get_ref())?;
        let pre = ask.pre;
        let ask = ask.into_request();
        let answer =
            if pre { self.core.raft.pre_vote(ask).await } else { self.core.raft.vote(ask).await };
        Ok(Response::new(wire::pack(&wire::Voted::of(&answer.map_err(fatal)?))))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Frame>, Status> {
        self.caller(&request)?;
        let mut pieces = request.into_inner();
        let first = pieces.message().await?;
        let first = first.ok_or_else(|| Status::invalid_argument("nothing was sent"))?;
        let first: wire::AnnounceSnapshot = wire::unpack(&first)?;
        let received = self.receive(pieces).await?;
        let path = received.0.clone();
        let read = self.core.ground.aside.run(move || snapshot::read(&path));
        let (file, state) = read.await.map_err(fatal)?.map_err(fatal)?;
        if file.header != first.header {
            return Err(Status::invalid_argument("another snapshot was announced"));
        }
        let members = openraft::Membership::try_from(first.header.members).map_err(fatal)?;
        let meta = SnapshotMeta {
            last_log_id: first.header.at.map(Into::into),
            last_membership: StoredMembership::new(
                first.header.members_at.map(Into::into),
                members,
            ),
        };
        if let Some(at) = first.header.at
            && confirm::holds(&*self.core.log, first.ballot)
            && self.core.log.index().has(at)
        {
            // It came late, and entries overtook it. openraft would go back to where it ends, and panics in a debug
            // build. What is said to be here must be on the disk.
            self.core.log.write_durably(Vec::new()).await.map_err(fatal)?;
            return Ok(Response::new(wire::pack(&first.ballot)));
        }
        let content = SnapshotContent { file, state: Some(Arc::new(state)) };
        let snapshot = openraft::Snapshot { meta, snapshot: content };
        let installed = self.core.raft.install_full_snapshot(first.ballot.into(), snapshot).await;
        let SnapshotResponse { vote } = installed.map_err(fatal)?;
        Ok(Response::new(wire::pack(&Ballot::from(vote))))
    }

    async fn transfer_leader(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        self.caller(&request)?;
        let transfer: wire::TransferLeader = wire::unpack(request.get_ref())?;
        let answer = self.core.raft.handle_transfer_leader(transfer.into_request()).await;
        Ok(Response::new(wire::pack(&answer.map_err(fatal)?.is_ok())))
    }

    async fn hand_over(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        self.caller(&request)?;
        let to: NodeId = wire::unpack(request.get_ref())?;
        let handed = self.core.hand_over_here(to).await.map_err(|error| error.to_string());
        Ok(Response::new(wire::pack(&handed)))
    }

    async fn propose(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let caller = self.caller(&request)?;
        let propose: wire::Propose = wire::unpack(request.get_ref())?;
        if matches!(propose.principal, Principal::Node(node) if node != caller) {
            return Err(Status::permission_denied("a node speaks for itself and for its clients"));
        }
        Ok(Response::new(wire::pack(&self.core.propose_here(propose).await)))
    }

    type FetchStream = file::Pieces;

    async fn fetch(&self, request: Request<Frame>) -> Result<Response<file::Pieces>, Status> {
        self.caller(&request)?;
        let file: Digest = wire::unpack(request.get_ref())?;
        let path = self.core.folders.shared.join(file.to_string());
        Ok(Response::new(file::read(&path).await?))
    }

    type ConfirmStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn confirm(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ConfirmStream>, Status> {
        self.caller(&request)?;
        let log = self.core.log.clone();
        let answers = request.into_inner().map(move |question| {
            let wire::Confirm { number, ballot } = wire::unpack(&question?)?;
            Ok(wire::pack(&wire::Confirmed { number, holds: confirm::holds(&*log, ballot) }))
        });
        // A node that stops waits for nobody's next question.
        let core = self.core.clone();
        let answers = answers.take_until(async move { core.stopped().await });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn read_index(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        self.caller(&request)?;
        Ok(Response::new(wire::pack(&self.core.read_index_here().await)))
    }
}
