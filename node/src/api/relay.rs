//! What only the node can answer that drives a host. Any other node asks it, in the caller's name and
//! one hop far.

use std::time::Duration;

use actors::LocalHost;
use client::Client;
use domain::{State, id::HostId};
use drivers::{DriverError, ErrorKind};
use raft_store::identity;
use tonic::{
    Request, Status,
    metadata::{MetadataMap, MetadataValue},
    transport::Channel,
};

use super::Api;

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
            let missing = || Status::failed_precondition("this node drives no such host");
            return local.map(|local| Driven::Here(local)).ok_or_else(missing);
        }
        if caller.contains_key(HOP) {
            let moved = "the host has moved to another node; ask again";
            return Err(Status::failed_precondition(moved));
        }
        let node = node.and_then(|node| state.nodes.get(&node));
        let nobody = || Status::failed_precondition("the host has no node");
        let address = node.map(|node| node.api_address.clone()).ok_or_else(nobody)?;
        let bearer = caller.get("authorization").and_then(|value| value.to_str().ok());
        let bearer = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let client = Client::new(client::Options {
            endpoints: vec![address],
            authority: self.files.authority.certificate_pem().to_owned(),
            server_name: identity::cluster_name(self.files.node.cluster),
            bearer: bearer.to_owned(),
            deadline: NODE_TIMEOUT,
        });
        let client = client.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Driven::There(Neighbour(client)))
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
            Status::failed_precondition(error.to_string())
        }
    }
}

pub(super) fn mark<Q>(request: &mut Request<Q>) {
    request.metadata_mut().insert(HOP, MetadataValue::from_static("1"));
}

/// What a driver says, in time.
pub(super) async fn within<T>(
    call: impl Future<Output = Result<T, DriverError>>,
) -> Result<T, Status> {
    let late = || Status::deadline_exceeded(format!("the host did not answer in {HOST_TIMEOUT:?}"));
    let answered = tokio::time::timeout(HOST_TIMEOUT, call).await.map_err(|_| late())?;
    answered.map_err(|error| match error.kind {
        ErrorKind::NotFound => Status::not_found(error.message),
        ErrorKind::Transient
        | ErrorKind::Permanent
        | ErrorKind::Conflict
        | ErrorKind::Quota
        | ErrorKind::Capacity
        | ErrorKind::Throttled
        | ErrorKind::Auth
        | ErrorKind::Fenced
        | ErrorKind::Protocol
        | ErrorKind::Ambiguous => Status::failed_precondition(error.message),
    })
}
