//! What only the node can answer that drives a host. Any other node asks it, in the caller's name and
//! one hop far.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actors::LocalHost;
use client::Client;
use domain::{
    State,
    id::{HostId, NodeId},
    limit,
    node::Node,
};
use drivers::{DriverError, ErrorKind};
use raft_store::identity;
use tonic::{
    Code, Request, Status,
    metadata::{MetadataMap, MetadataValue},
    transport::Channel,
};

use super::{Api, errors};

/// Longest wait for a host.
const HOST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for another node.
const NODE_TIMEOUT: Duration = Duration::from_secs(12);
/// Set on a request that a node passes on; it is not passed on again.
const HOP: &str = "novacron-hop";

/// Where a host is driven.
pub(super) enum Driven<'a> {
    Here(&'a LocalHost),
    There(Neighbour),
}

/// Connections to other nodes, by their addresses.
pub(crate) type Connections = Arc<Mutex<HashMap<String, Client>>>;

/// The node that drives the host.
pub(super) struct Neighbour(Client);

impl Api {
    /// Finds who drives a host.
    pub(super) fn driven(
        &self,
        state: &State,
        host: HostId,
        caller: &MetadataMap,
    ) -> Result<Driven<'_>, Status> {
        let node = state.hosts.get(&host).map(|host| host.node);
        if node == Some(self.store.node()) {
            let local = self.hosts.iter().find(|local| local.id == host);
            let missing = || unreachable("this node drives no such host");
            return local.map(|local| Driven::Here(local)).ok_or_else(missing);
        }
        if is_passed_on(caller) {
            let moved = "the host has moved to another node; ask again";
            return Err(unreachable(moved));
        }
        let node = node.and_then(|node| state.nodes.get(&node));
        let node = node.ok_or_else(|| unreachable("the host has no node"))?;
        self.neighbour(node, caller, NODE_TIMEOUT).map(Driven::There)
    }

    /// The other nodes that drive hosts, by their names, to be asked in the caller's name; none when another node
    /// asks.
    pub(super) fn neighbours(
        &self,
        state: &State,
        caller: &MetadataMap,
        patience: Duration,
    ) -> Vec<(String, Neighbour)> {
        if is_passed_on(caller) {
            return Vec::new();
        }
        let driving: BTreeSet<NodeId> = state.hosts.values().map(|host| host.node).collect();
        let others = driving.into_iter().filter(|node| *node != self.store.node());
        let others = others.filter_map(|node| state.nodes.get(&node));
        let others = others.filter_map(|node| {
            Some((node.name.to_string(), self.neighbour(node, caller, patience).ok()?))
        });
        others.collect()
    }

    fn neighbour(
        &self,
        node: &Node,
        caller: &MetadataMap,
        patience: Duration,
    ) -> Result<Neighbour, Status> {
        let bearer = caller.get("authorization").and_then(|value| value.to_str().ok());
        let bearer = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let traceparent = telemetry::trace::current().map(|place| place.to_string());
        let client = self.connected(&node.api_address);
        let client = client.and_then(|client| client.in_name_of(bearer, traceparent));
        let client = client.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Neighbour(client.within(patience)))
    }

    /// The connection to another node: it is kept, and made anew when it broke.
    fn connected(&self, address: &str) -> Result<Client, client::Error> {
        let mut kept = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = kept.get(address) {
            return Ok(client.clone());
        }
        let client = Client::new(client::Options {
            endpoints: vec![address.to_owned()],
            authority: self.files.authority.certificate_pem().to_owned(),
            server_name: identity::cluster_name(self.files.node.cluster),
            bearer: String::new(),
            deadline: NODE_TIMEOUT,
            traceparent: None,
        })?;
        // Addresses change seldom; those of nodes that are gone need no memory for ever.
        if kept.len() >= limit::NODES_MAX {
            kept.clear();
        }
        kept.insert(address.to_owned(), client.clone());
        Ok(client)
    }
}

impl Neighbour {
    /// A client of the node, in the caller's name.
    pub(super) fn client(&self) -> &Client {
        &self.0
    }

    /// Opens a stream to the node.
    pub(super) fn stream<Q>(&self, messages: Q) -> (Channel, Request<Q>) {
        let (channel, mut request) = self.0.stream(messages);
        mark(&mut request);
        (channel, request)
    }
}

/// Passes `$request` on to `$client::$method` of the node.
macro_rules! pass_on {
    ($node:expr, $client:path, $method:ident, $request:expr) => {
        $node
            .client()
            .call($request.into_inner(), async |channel, mut request| {
                $crate::api::relay::mark(&mut request);
                <$client>::new(channel).$method(request).await
            })
            .await
            .map(tonic::Response::new)
            .map_err($crate::api::relay::refused)
    };
}
pub(super) use pass_on;

pub(super) fn refused(error: client::Error) -> Status {
    match error {
        client::Error::Refused(status) => *status,
        client::Error::Options(_) | client::Error::Unreachable(_) | client::Error::Timeout(_) => {
            unreachable(&error.to_string())
        }
    }
}

/// Whether another node passed it on.
pub(super) fn is_passed_on(caller: &MetadataMap) -> bool {
    caller.contains_key(HOP)
}

pub(super) fn mark<Q>(request: &mut Request<Q>) {
    request.metadata_mut().insert(HOP, MetadataValue::from_static("1"));
}

/// What a driver says, in time.
pub(super) async fn within<T>(
    call: impl Future<Output = Result<T, DriverError>>,
) -> Result<T, Status> {
    let late = || {
        let message = format!("the host did not answer in {HOST_TIMEOUT:?}");
        errors::status(Code::DeadlineExceeded, &message, "HOST_SILENT")
    };
    let answered = tokio::time::timeout(HOST_TIMEOUT, call).await.map_err(|_| late())?;
    answered.map_err(|error| match error.kind {
        // Of the body that the state has: it is not made yet, or has just gone.
        ErrorKind::NotFound | ErrorKind::Conflict => {
            errors::status(Code::FailedPrecondition, &error.message, "NOT_RUNNING")
        }
        ErrorKind::Transient
        | ErrorKind::Permanent
        | ErrorKind::Quota
        | ErrorKind::Capacity
        | ErrorKind::Throttled
        | ErrorKind::Auth
        | ErrorKind::Fenced
        | ErrorKind::Protocol
        | ErrorKind::Ambiguous => unreachable(&error.message),
    })
}

/// The host cannot be asked at present.
fn unreachable(message: &str) -> Status {
    errors::status(Code::FailedPrecondition, message, "HOST_UNREACHABLE")
}
