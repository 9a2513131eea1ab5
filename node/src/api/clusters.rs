//! The cluster itself: where it stands, who belongs to it, who may join.

use actors::LocalHost;
use domain::{
    State,
    cluster::PROTOCOL_VERSION,
    envelope::Command,
    host,
    id::{Digest, NodeId, StoreId},
    node::{Join, Node, NodeCommand},
    principal::{Principal, Role},
    rejected::Reason,
    token,
};
use proto::{convert, v1, v1::clusters_server::Clusters};
use raft_store::{Consistency, Status as Group, View, identity::Subject};
use tonic::{Request, Response, Status};

use super::{
    Api, auth,
    change::{answer, not_found},
    errors, find,
};
use crate::clock;

/// Bytes of an address that a node may give itself: the longest name of a machine, and a port.
const ADDRESS_BYTES_MAX: usize = 255 + ":65535".len();

fn node<'a>(state: &'a State, text: &str) -> Option<&'a Node> {
    find(
        text,
        |id: NodeId| state.nodes.get(&id).map(|node| &**node),
        |name| state.node_named(&name).map(|node| &**node),
    )
}

fn count(rows: usize) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}

fn role(group: &Group, node: NodeId) -> &'static str {
    if group.leader == Some(node) {
        "leader"
    } else if group.electorates.iter().all(|voters| voters.contains(&node)) {
        "voter"
    } else if group.learners.contains(&node) || group.voters.contains(&node) {
        "learner"
    } else {
        "joining"
    }
}

fn guarded(host: &LocalHost) -> Option<v1::GuardedHost> {
    let ends_in = host.held_for()?.as_millis();
    let ends_in_ms = u64::try_from(ends_in).unwrap_or(u64::MAX);
    Some(v1::GuardedHost { host: host.name.to_string(), ends_in_ms })
}

fn member(group: &Group, node: &Node) -> v1::Node {
    let follower = group.followers.get(&node.id);
    let matched = follower.and_then(|follower| follower.matched).map(|at| at.index);
    let behind = |index: u64| group.last_index.unwrap_or(0).saturating_sub(index);
    v1::Node {
        id: node.id,
        name: node.name.to_string(),
        peer_address: node.peer_address.clone(),
        api_address: node.api_address.clone(),
        role: role(group, node.id).to_owned(),
        silent_ms: follower.and_then(|follower| follower.silent_ms),
        behind: matched.map(behind),
        disk_used_percent: u32::from(node.disk_used_percent),
        version: node.version.clone(),
        protocol_max: node.protocol_max,
    }
}

impl Api {
    /// Refuses whoever shows a token that nobody knows. Anybody may try, so it must not become an entry of the log,
    /// as what is decided on does.
    async fn know_token(&self, join: &Join) -> Result<(), Status> {
        let refusal = |view: &View| {
            let shown =
                token::present(&view.state, join.secret_sha256, &join.name, clock::wall_ms());
            shown.err().filter(|refusal| refusal.reason == Reason::TokenUnknown)
        };
        if refusal(&self.store.view()).is_none() {
            return Ok(());
        }
        // It may be newer than all that this node has heard of.
        let view = self.store.read(Consistency::Linearizable).await.map_err(errors::read)?;
        refusal(&view).map_or(Ok(()), |refusal| Err(errors::rejected(refusal)))
    }
}

#[tonic::async_trait]
impl Clusters for Api {
    async fn get_cluster(
        &self,
        request: Request<v1::GetClusterRequest>,
    ) -> Result<Response<v1::Cluster>, Status> {
        auth::caller(Role::Viewer)?;
        let view = self.view(request.into_inner().freshness.as_ref()).await?;
        let (state, group) = (&view.state, self.store.status());
        let named = |id: NodeId| state.nodes.get(&id).map(|node| node.name.to_string());
        let ready = state.hosts.values().filter(|row| row.status == host::Status::Ready);
        let (id, name) = match &state.cluster {
            Some(cluster) => (cluster.id.to_string(), cluster.name.to_string()),
            None => (String::new(), String::new()),
        };
        Ok(Response::new(v1::Cluster {
            id,
            name,
            revision: view.revision().as_u64(),
            chain: view.chain().to_string(),
            leader: group.leader.and_then(named).unwrap_or_default(),
            term: group.term,
            nodes: state.nodes.values().map(|node| member(&group, node)).collect(),
            losable: count(group.losable()),
            hosts_ready: count(ready.count()),
            hosts: count(state.hosts.len()),
            vms: count(state.vms.len()),
            open_operations: count(state.open_operations()),
            answered_by: named(group.node).unwrap_or_default(),
            protocol_version: state.protocol_version,
            guarded_hosts: self.hosts.iter().filter_map(|host| guarded(host)).collect(),
        }))
    }

    async fn get_version(
        &self,
        _: Request<v1::GetVersionRequest>,
    ) -> Result<Response<v1::Version>, Status> {
        Ok(Response::new(v1::Version {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol_version: PROTOCOL_VERSION,
            authority: self.files.authority.certificate_pem().to_owned(),
            cluster_id: self.files.node.cluster.to_string(),
        }))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let removed = self.change(Role::Admin, mutation, &message, |state, _| {
            let row = node(state, &message.node).ok_or_else(|| not_found("node", &message.node))?;
            Ok(Command::Node(NodeCommand::Remove { node: row.id }))
        });
        Ok(answer(removed.await?))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        auth::caller(Role::Admin)?;
        let message = request.into_inner();
        let view = self.view(None).await?;
        let group = self.store.status();
        let to = match message.node.as_str() {
            "" => group.voters.iter().copied().find(|node| Some(*node) != group.leader),
            text => node(&view.state, text).map(|node| node.id),
        };
        let to = to.ok_or_else(|| errors::rejected(not_found("voter", &message.node)))?;
        self.store
            .transfer_leader(to)
            .await
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        let leader = view.state.nodes.get(&to).map(|node| node.name.to_string());
        Ok(Response::new(v1::TransferLeaderResponse { leader: leader.unwrap_or_default() }))
    }

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let message = request.into_inner();
        let invalid = |field: &str, error: &dyn std::fmt::Display| {
            errors::rejected(convert::invalid(field, error))
        };
        let name = convert::name("name", &message.name).map_err(errors::rejected)?;
        let store: StoreId =
            convert::id("store_id", &message.store_id).map_err(errors::rejected)?;
        for (field, address) in
            [("peer_address", &message.peer_address), ("api_address", &message.api_address)]
        {
            if address.len() > ADDRESS_BYTES_MAX {
                let why =
                    format!("has {} bytes; at most {ADDRESS_BYTES_MAX} are allowed", address.len());
                return Err(invalid(field, &why));
            }
        }
        let key_sha256 = raft_store::identity::request_key_digest(&message.signing_request)
            .map_err(|error| invalid("signing_request", &error))?;
        let addresses = vec![message.peer_address.clone(), message.api_address.clone()];
        let join = Join {
            secret_sha256: Digest::sha256(message.secret.as_bytes()),
            name,
            peer_address: message.peer_address,
            api_address: message.api_address,
            store,
            key_sha256,
            protocol_max: message.protocol_max,
        };
        self.know_token(&join).await?;
        let command = Command::Node(NodeCommand::Join(Box::new(join)));
        let joined = self.store.propose(Principal::Joiner, None, command).await;
        let joined = joined.map_err(errors::proposed)?;
        let node_id: NodeId =
            joined.object.parse().map_err(|_| Status::internal("the answer names no node"))?;
        let subject = Subject { cluster: self.files.node.cluster, node: node_id, addresses };
        let certificate = self
            .files
            .authority
            .sign(&message.signing_request, &subject)
            .map_err(|error| invalid("signing_request", &error))?;
        Ok(Response::new(v1::JoinResponse {
            node_id,
            cluster_id: self.files.node.cluster.to_string(),
            cluster_name: self.files.node.cluster_name.to_string(),
            certificate,
            authority: self.files.authority.certificate_pem().to_owned(),
            authority_key: self.files.authority.key_pem().to_owned(),
        }))
    }
}
