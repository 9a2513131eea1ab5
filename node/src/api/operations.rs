//! Operations.

use std::time::Duration;

use domain::{
    envelope::Command,
    host::Status as Heard,
    id::{HostId, OperationId},
    operation::{Class, OperationCommand},
    principal::Role,
};
use proto::{convert, v1, v1::operations_server::Operations};
use raft_store::Consistency;
use tonic::{Request, Response, Status};

use super::{
    Api, auth,
    change::{answer, mint, not_found},
    errors,
    list::{Lazy, page},
};

const MESSAGE: &str = "novacron.v1.Operation";
const WAIT_MS_DEFAULT: u32 = 30_000;
const WAIT_MS_MAX: u32 = 60_000;

fn id(text: &str) -> Result<OperationId, Status> {
    convert::id("operation", text).map_err(errors::rejected)
}

/// A verb whose message says nothing but the operation. The verb's name goes into the digest: the same
/// request id for another verb is another request.
#[derive(Clone, PartialEq, prost::Message)]
struct Asked {
    #[prost(string, tag = "1")]
    operation: String,
    #[prost(string, tag = "2")]
    verb: String,
}

impl Api {
    async fn ask(
        &self,
        mutation: Option<v1::Mutation>,
        asked: Asked,
        how: impl Fn(OperationId) -> OperationCommand + Send + Sync,
    ) -> Result<Response<v1::Outcome>, Status> {
        let operation = id(&asked.operation)?;
        let changed = self.change(Role::Operator, mutation, &asked, |_, _| {
            Ok(Command::Operation(how(operation)))
        });
        Ok(answer(changed.await?))
    }
}

#[tonic::async_trait]
impl Operations for Api {
    async fn get_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let id = id(&message.operation)?;
        let view = self.view(message.freshness.as_ref()).await?;
        let row = view.state.operations.get(&id);
        let row =
            row.ok_or_else(|| errors::rejected(not_found("operation", &message.operation)))?;
        Ok(Response::new(convert::operation::operation_now(&view.state, row)))
    }

    async fn list_operations(
        &self,
        request: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let view = self.view(message.freshness.as_ref()).await?;
        let rows = view.state.operations.values();
        let rows = rows
            .map(|row| Lazy::new(row.id, || convert::operation::operation_now(&view.state, row)));
        let (operations, next_page_token) = page(message.page, MESSAGE, "", rows)?;
        let revision = view.revision().as_u64();
        Ok(Response::new(v1::ListOperationsResponse { operations, next_page_token, revision }))
    }

    async fn wait_operation(
        &self,
        request: Request<v1::WaitOperationRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let id = id(&message.operation)?;
        let timeout_ms = match message.timeout_ms {
            0 => WAIT_MS_DEFAULT,
            ms => ms.min(WAIT_MS_MAX),
        };
        // The operation may be so new that this node does not know it yet.
        let view = self.store.read(Consistency::Linearizable).await.map_err(errors::read)?;
        if !view.state.operations.contains_key(&id) {
            return Err(errors::rejected(not_found("operation", &message.operation)));
        }
        let mut views = self.store.views();
        let ended = views.wait_for(|view| {
            view.state.operations.get(&id).is_none_or(|row| row.status.is_final())
        });
        let timeout = Duration::from_millis(u64::from(timeout_ms));
        let _ = tokio::time::timeout(timeout, ended).await;
        let view = self.store.view();
        let row = view.state.operations.get(&id);
        let row =
            row.ok_or_else(|| errors::rejected(not_found("operation", &message.operation)))?;
        Ok(Response::new(convert::operation::operation_now(&view.state, row)))
    }

    async fn cancel_operation(
        &self,
        request: Request<v1::CancelOperationRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let v1::CancelOperationRequest { mutation, operation } = request.into_inner();
        let how = |operation| OperationCommand::Cancel { operation };
        self.ask(mutation, Asked { operation, verb: "cancel".to_owned() }, how).await
    }

    async fn retry_operation(
        &self,
        request: Request<v1::RetryOperationRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let v1::RetryOperationRequest { mutation, operation } = request.into_inner();
        let how = |operation| OperationCommand::Retry { operation };
        self.ask(mutation, Asked { operation, verb: "retry".to_owned() }, how).await
    }

    async fn resume_operation(
        &self,
        request: Request<v1::ResumeOperationRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let v1::ResumeOperationRequest { mutation, operation } = request.into_inner();
        let how = |operation| OperationCommand::Resume { operation };
        self.ask(mutation, Asked { operation, verb: "resume".to_owned() }, how).await
    }

    async fn abandon_operation(
        &self,
        request: Request<v1::AbandonOperationRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let v1::AbandonOperationRequest { mutation, operation } = request.into_inner();
        let how = |operation| OperationCommand::Abandon { operation };
        self.ask(mutation, Asked { operation, verb: "abandon".to_owned() }, how).await
    }

    async fn probe_hosts(
        &self,
        request: Request<v1::ProbeHostsRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let class = match message.class.as_str() {
            "" => Class::MonitoringAlerts,
            text => convert::operation::class(text).map_err(errors::rejected)?,
        };
        let probed = self.change(Role::Operator, mutation, &message, |state, operation| {
            let hosts: Vec<HostId> = if message.hosts.is_empty() {
                let heard = state.hosts.values().filter(|host| host.status == Heard::Ready);
                heard.map(|host| host.id).collect()
            } else {
                let named = message.hosts.iter().map(|name| {
                    let found = super::hosts::host(state, name);
                    found.map(|host| host.id).ok_or_else(|| not_found("host", name))
                });
                named.collect::<Result<_, _>>()?
            };
            let hosts = hosts.into_iter().map(|host| (host, mint())).collect();
            Ok(Command::Operation(OperationCommand::Probe { operation, class, hosts }))
        });
        Ok(answer(probed.await?))
    }

    async fn list_queues(
        &self,
        request: Request<v1::ListQueuesRequest>,
    ) -> Result<Response<v1::ListQueuesResponse>, Status> {
        auth::caller(Role::Viewer)?;
        let view = self.view(request.into_inner().freshness.as_ref()).await?;
        let queues = Class::ALL.map(|class| convert::operation::queue(&view.state, class));
        Ok(Response::new(v1::ListQueuesResponse { queues: queues.into() }))
    }
}
