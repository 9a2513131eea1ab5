//! What guests write to their serial consoles. It lies on their hosts: a node that does not drive the
//! host asks the one that does, in the caller's name and one hop far.

use std::time::Duration;

use proto::{v1, v1::vms_client::VmsClient};
use raft_store::identity;
use tonic::{Request, Response, Status};

use super::{Api, change::not_found, errors, project, vm};

/// Longest wait for a host.
const CONSOLE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
/// Set on a request that a node passes on; it is not passed on again.
const HOP: &str = "novacron-hop";
const BYTES_DEFAULT: u32 = 64 << 10;
const BYTES_MAX: u32 = 1 << 20;

impl Api {
    pub(super) async fn console_log(
        &self,
        request: Request<v1::GetConsoleLogRequest>,
    ) -> Result<Response<v1::ConsoleLog>, Status> {
        let message = request.get_ref();
        let project = project(&message.project)?;
        let view = self.view(None).await?;
        let row = vm(&view.state, &project, &message.vm)
            .ok_or_else(|| errors::rejected(not_found("VM", &message.vm)))?;
        let Some(body) = view.state.instance_of(row.id) else {
            return Ok(Response::new(v1::ConsoleLog::default()));
        };
        let node = view.state.hosts.get(&body.host).map(|host| host.node);
        if node != Some(self.store.node()) {
            let node = node.and_then(|node| view.state.nodes.get(&node));
            let address = node.map(|node| node.api_address.clone());
            let address =
                address.ok_or_else(|| Status::failed_precondition("the host has no node"))?;
            return self.pass_on(address, request).await;
        }
        let host = self.hosts.iter().find(|host| host.id == body.host);
        let host =
            host.ok_or_else(|| Status::failed_precondition("this node drives no such host"))?;
        let bytes_max = match message.bytes_max {
            0 => BYTES_DEFAULT,
            bytes => bytes.min(BYTES_MAX),
        };
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let read = host.driver.console_log(body.id, message.offset, bytes_max);
        let read = tokio::time::timeout(CONSOLE_TIMEOUT, read).await;
        let read = read.map_err(|_| {
            Status::deadline_exceeded(format!("the host did not answer in {CONSOLE_TIMEOUT:?}"))
        })?;
        let (bytes, next_offset) =
            read.map_err(|error| Status::failed_precondition(error.to_string()))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Response::new(v1::ConsoleLog { text, next_offset }))
    }

    async fn pass_on(
        &self,
        address: String,
        request: Request<v1::GetConsoleLogRequest>,
    ) -> Result<Response<v1::ConsoleLog>, Status> {
        let metadata = request.metadata();
        if metadata.contains_key(HOP) {
            return Err(Status::failed_precondition(
                "the host has moved to another node; ask again",
            ));
        }
        let bearer = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let bearer = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let client = client::Client::new(client::Options {
            endpoints: vec![address],
            authority: self.files.authority.certificate_pem().to_owned(),
            server_name: identity::cluster_name(self.files.node.cluster),
            bearer: bearer.to_owned(),
            deadline: Duration::from_secs(5),
        });
        let client = client.map_err(|error| Status::internal(error.to_string()))?;
        let passed = client.call(request.into_inner(), async |channel, mut request: Request<_>| {
            request.metadata_mut().insert(HOP, tonic::metadata::MetadataValue::from_static("1"));
            VmsClient::new(channel).get_console_log(request).await
        });
        passed.await.map(Response::new).map_err(|error| match error {
            client::Error::Refused(status) => *status,
            client::Error::Options(_)
            | client::Error::Unreachable(_)
            | client::Error::Timeout(_) => Status::failed_precondition(error.to_string()),
        })
    }
}
