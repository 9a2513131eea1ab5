//! Hosts.

use domain::{
    State,
    envelope::Command,
    host::{Host, HostCommand},
    id::HostId,
    principal::Role,
};
use drivers::Foreign;
use proto::{
    convert, v1,
    v1::{hosts_client::HostsClient, hosts_server::Hosts},
};
use tonic::{Request, Response, Status};

use super::{
    Api, auth,
    change::{answer, not_found},
    errors, find,
    list::{Lazy, page},
    relay::{Driven, pass_on, within},
};

const MESSAGE: &str = "novacron.v1.Host";

pub(super) fn host<'a>(state: &'a State, text: &str) -> Option<&'a Host> {
    find(
        text,
        |id: HostId| state.hosts.get(&id).map(|host| &**host),
        |name| state.host_named(&name).map(|host| &**host),
    )
}

#[tonic::async_trait]
impl Hosts for Api {
    async fn get_host(
        &self,
        request: Request<v1::GetHostRequest>,
    ) -> Result<Response<v1::Host>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let view = self.view(message.freshness.as_ref()).await?;
        let row = host(&view.state, &message.host)
            .ok_or_else(|| errors::rejected(not_found("host", &message.host)))?;
        Ok(Response::new(convert::infrastructure::host(&view.state, row)))
    }

    async fn list_hosts(
        &self,
        request: Request<v1::ListHostsRequest>,
    ) -> Result<Response<v1::ListHostsResponse>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let view = self.view(message.freshness.as_ref()).await?;
        let state = &view.state;
        let rows = state.hosts_by_name();
        let rows =
            rows.map(|row| Lazy::new(&row.name, || convert::infrastructure::host(state, row)));
        let (hosts, next_page_token) = page(message.page, MESSAGE, "", rows)?;
        let revision = view.revision().as_u64();
        Ok(Response::new(v1::ListHostsResponse { hosts, next_page_token, revision }))
    }

    async fn list_foreign_vms(
        &self,
        request: Request<v1::ListForeignVmsRequest>,
    ) -> Result<Response<v1::ListForeignVmsResponse>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.get_ref();
        let view = self.view(None).await?;
        let row = host(&view.state, &message.host)
            .ok_or_else(|| errors::rejected(not_found("host", &message.host)))?;
        match self.driven(&view.state, row.id, request.metadata())? {
            Driven::Here(host) => {
                let foreign = within(host.driver.foreign()).await?.into_iter();
                let vms = foreign.map(|Foreign { name, uuid, running }| v1::ForeignVm {
                    name,
                    uuid,
                    running,
                });
                Ok(Response::new(v1::ListForeignVmsResponse { vms: vms.collect() }))
            }
            Driven::There(node) => pass_on!(node, HostsClient<_>, list_foreign_vms, request),
        }
    }

    async fn confirm_host_dead(
        &self,
        request: Request<v1::ConfirmHostDeadRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let confirmed = self.change(Role::Admin, mutation, &message, |state, _| {
            let row = host(state, &message.host).ok_or_else(|| not_found("host", &message.host))?;
            Ok(Command::Host(HostCommand::ConfirmDead { host: row.id, boot: row.boot }))
        });
        Ok(answer(confirmed.await?))
    }

    async fn remove_host(
        &self,
        request: Request<v1::RemoveHostRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let removed = self.change(Role::Admin, mutation, &message, |state, _| {
            let row = host(state, &message.host).ok_or_else(|| not_found("host", &message.host))?;
            Ok(Command::Host(HostCommand::Remove { host: row.id }))
        });
        Ok(answer(removed.await?))
    }
}
