//! Hosts.

use std::collections::BTreeMap;

use domain::{
    State,
    envelope::Command,
    host::{Host, HostCommand, Schedule},
    id::HostId,
    limit,
    name::Name,
    principal::Role,
    rejected::Rejected,
    vm::Vm,
};
use drivers::Foreign;
use planner::place::Fate;
use proto::{
    convert, v1,
    v1::{hosts_client::HostsClient, hosts_server::Hosts},
};
use tonic::{Request, Response, Status};

use super::{
    Api, auth,
    change::{answer, mint, not_found},
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

fn drain_row(state: &State, vm: &Vm, fate: Fate) -> v1::DrainRow {
    let (fate, host, reason) = match fate {
        Fate::Leaving => ("leaving", None, String::new()),
        Fate::Waits => ("waits", None, "something else is done with it first".to_owned()),
        Fate::Leaves(host) => ("leaves", state.hosts.get(&host), String::new()),
        Fate::Stays(reason) => ("stays", None, reason),
    };
    v1::DrainRow {
        project: vm.project.to_string(),
        vm: vm.name.to_string(),
        fate: fate.to_owned(),
        host: host.map(|host| host.name.to_string()).unwrap_or_default(),
        reason,
    }
}

impl Api {
    async fn schedule(
        &self,
        request: Request<v1::ScheduleHostRequest>,
        schedule: Schedule,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        // What is wanted goes into the digest: the same request id for another verb is another one.
        let verb = Scheduling { host: message.host, schedule: schedule.as_str().to_owned() };
        let scheduled = self.change(Role::Admin, mutation, &verb, |state, operation| {
            let row = host(state, &verb.host).ok_or_else(|| not_found("host", &verb.host))?;
            let operation = (schedule == Schedule::Draining).then_some(operation);
            Ok(Command::Host(HostCommand::Schedule { host: row.id, schedule, operation }))
        });
        Ok(answer(scheduled.await?))
    }
}

/// The changes of a host's labels.
fn labels(message: &v1::LabelHostRequest) -> Result<BTreeMap<Name, Option<String>>, Rejected> {
    let mut labels = BTreeMap::new();
    for (label, value) in &message.set {
        labels.insert(convert::name("set", label)?, Some(value.clone()));
    }
    for label in &message.remove {
        if labels.insert(convert::name("remove", label)?, None).is_some() {
            return Err(convert::invalid("remove", format!("{label} is set as well")));
        }
    }
    Ok(labels)
}

#[derive(Clone, PartialEq, prost::Message)]
struct Scheduling {
    #[prost(string, tag = "1")]
    host: String,
    #[prost(string, tag = "2")]
    schedule: String,
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

    async fn cordon_host(
        &self,
        request: Request<v1::ScheduleHostRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        self.schedule(request, Schedule::Cordoned).await
    }

    async fn drain_host(
        &self,
        request: Request<v1::ScheduleHostRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        self.schedule(request, Schedule::Draining).await
    }

    async fn uncordon_host(
        &self,
        request: Request<v1::ScheduleHostRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        self.schedule(request, Schedule::Open).await
    }

    async fn preview_drain(
        &self,
        request: Request<v1::PreviewDrainRequest>,
    ) -> Result<Response<v1::PreviewDrainResponse>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let view = self.view(None).await?;
        let state = &view.state;
        let row = host(state, &message.host)
            .ok_or_else(|| errors::rejected(not_found("host", &message.host)))?;
        let fates = planner::place::evacuation(state, row.id).into_iter();
        let vms = fates.filter_map(|(vm, fate)| Some(drain_row(state, state.vms.get(&vm)?, fate)));
        Ok(Response::new(v1::PreviewDrainResponse { vms: vms.collect() }))
    }

    async fn restore_host(
        &self,
        request: Request<v1::ScheduleHostRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let verb = Scheduling { host: message.host, schedule: "restore".to_owned() };
        let restored = self.change(Role::Admin, mutation, &verb, |state, operation| {
            let row = host(state, &verb.host).ok_or_else(|| not_found("host", &verb.host))?;
            let home = state.vms.values().filter(|vm| vm.home == Some(row.id));
            let moves = home.take(limit::BATCH_MAX).map(|vm| (vm.id, mint())).collect();
            Ok(Command::Host(HostCommand::Restore { host: row.id, operation, moves }))
        });
        Ok(answer(restored.await?))
    }

    async fn label_host(
        &self,
        request: Request<v1::LabelHostRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let labelled = self.change(Role::Admin, mutation, &message, |state, _| {
            let row = host(state, &message.host).ok_or_else(|| not_found("host", &message.host))?;
            let labels = labels(&message)?;
            Ok(Command::Host(HostCommand::Label { host: row.id, labels }))
        });
        Ok(answer(labelled.await?))
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
