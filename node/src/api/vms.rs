//! VMs.

use std::cmp::Ordering;

use domain::{
    State,
    envelope::Command,
    id::{OperationId, VmId},
    name::Name,
    principal::Role,
    rejected::Rejected,
    vm::{SpecPatch, VmCommand},
};
use proto::{
    convert, v1,
    v1::{vms_client::VmsClient, vms_server::Vms},
};
use tonic::{Request, Response, Status};

use super::{
    Api, auth,
    change::{answer, etag, mint, not_found},
    errors,
    hosts::host,
    list::{Lazy, page_after},
    project,
    relay::{Driven, pass_on, within},
    vm,
};

const MESSAGE: &str = "novacron.v1.Vm";

impl Api {
    /// A change of one existing VM.
    async fn change_vm<M: prost::Message>(
        &self,
        mutation: Option<v1::Mutation>,
        message: &M,
        of: (&str, &str),
        command: impl Fn(VmId, OperationId) -> Result<VmCommand, Rejected> + Send + Sync,
    ) -> Result<Response<v1::Outcome>, Status> {
        let (project, name) = (project(of.0)?, of.1);
        let changed = self.change(Role::Operator, mutation, message, |state, operation| {
            let row = vm(state, &project, name).ok_or_else(|| not_found("VM", name))?;
            Ok(Command::Vm(command(row.id, operation)?))
        });
        Ok(answer(changed.await?))
    }
}

#[tonic::async_trait]
impl Vms for Api {
    async fn create_vm(
        &self,
        request: Request<v1::CreateVmRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let project = project(&message.project)?;
        let name = convert::name("name", &message.name).map_err(errors::rejected)?;
        let spec = convert::vm::read_spec(message.spec.clone()).map_err(errors::rejected)?;
        let id: VmId = mint();
        let created = self.change(Role::Operator, mutation, &message, |_, operation| {
            Ok(Command::Vm(VmCommand::Create {
                vm: id,
                project: project.clone(),
                name: name.clone(),
                spec: Box::new(spec.clone()),
                start: !message.stopped,
                operation,
            }))
        });
        Ok(answer(created.await?))
    }

    async fn get_vm(&self, request: Request<v1::GetVmRequest>) -> Result<Response<v1::Vm>, Status> {
        let role = auth::caller(Role::Viewer)?.role;
        let message = request.into_inner();
        let project = project(&message.project)?;
        let view = self.view(message.freshness.as_ref()).await?;
        let row = vm(&view.state, &project, &message.vm)
            .ok_or_else(|| errors::rejected(not_found("VM", &message.vm)))?;
        Ok(Response::new(shown_to(role, convert::vm::vm(&view.state, row))))
    }

    async fn list_vms(
        &self,
        request: Request<v1::ListVmsRequest>,
    ) -> Result<Response<v1::ListVmsResponse>, Status> {
        let role = auth::caller(Role::Viewer)?.role;
        let message = request.into_inner();
        let view = self.view(message.freshness.as_ref()).await?;
        let state = &view.state;
        let projects: Vec<Name> = match message.project.as_str() {
            "-" => state.projects.keys().cloned().collect(),
            one => vec![project(one)?],
        };
        let rows = |after: Option<&str>| {
            let (from, vm) = after.and_then(|key| key.split_once('\0')).unwrap_or_default();
            let (from, vm) = (from.to_owned(), Name::new(vm).ok());
            let rest =
                projects.iter().filter_map(move |project| match project.as_str().cmp(&from) {
                    Ordering::Less => None,
                    Ordering::Equal => Some((project, vm.clone())),
                    Ordering::Greater => Some((project, None)),
                });
            rest.flat_map(|(project, first)| lazily(state, role, project, first))
        };
        let (vms, next_page_token) = page_after(message.page, MESSAGE, &message.project, rows)?;
        let revision = view.revision().as_u64();
        Ok(Response::new(v1::ListVmsResponse { vms, next_page_token, revision }))
    }

    async fn update_vm(
        &self,
        request: Request<v1::UpdateVmRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let spec = convert::vm::read_spec(message.spec.clone()).map_err(errors::rejected)?;
        let of = (message.project.as_str(), message.vm.as_str());
        self.change_vm(mutation, &message, of, |vm, _| {
            let patch = SpecPatch { whole: Some(Box::new(spec.clone())), ..SpecPatch::default() };
            Ok(VmCommand::Update { vm, patch: Box::new(patch), etag: etag(message.etag) })
        })
        .await
    }

    async fn start_vm(
        &self,
        request: Request<v1::VmActionRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        self.act(request, "start", |vm, operation| VmCommand::Start { vm, operation }).await
    }

    async fn stop_vm(
        &self,
        request: Request<v1::StopVmRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let of = (message.project.as_str(), message.vm.as_str());
        self.change_vm(mutation, &message, of, |vm, operation| {
            Ok(VmCommand::Stop { vm, force: message.force, operation })
        })
        .await
    }

    async fn reboot_vm(
        &self,
        request: Request<v1::VmActionRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        self.act(request, "reboot", |vm, operation| VmCommand::Reboot { vm, operation }).await
    }

    async fn pause_vm(
        &self,
        request: Request<v1::VmActionRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        self.act(request, "pause", |vm, operation| VmCommand::Pause { vm, operation }).await
    }

    async fn resume_vm(
        &self,
        request: Request<v1::VmActionRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        self.act(request, "resume", |vm, operation| VmCommand::Resume { vm, operation }).await
    }

    async fn get_console_log(
        &self,
        request: Request<v1::GetConsoleLogRequest>,
    ) -> Result<Response<v1::ConsoleLog>, Status> {
        auth::caller(Role::Operator)?;
        self.console_log(request).await
    }

    async fn get_vm_usage(
        &self,
        request: Request<v1::GetVmUsageRequest>,
    ) -> Result<Response<v1::VmUsage>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.get_ref();
        let view = self.view(None).await?;
        let body = super::console::body(&view.state, &message.project, &message.vm)?;
        let Some(body) = body else { return Ok(Response::new(v1::VmUsage::default())) };
        match self.driven(&view.state, body.host, request.metadata())? {
            Driven::Here(host) => {
                let usage = within(host.driver.usage(body.vm)).await?;
                Ok(Response::new(v1::VmUsage {
                    cpu_ns: usage.cpu_ns,
                    memory_mib: usage.memory_mib,
                    disk_read_bytes: usage.disk_read_bytes,
                    disk_written_bytes: usage.disk_written_bytes,
                    network_received_bytes: usage.network_received_bytes,
                    network_sent_bytes: usage.network_sent_bytes,
                }))
            }
            Driven::There(node) => pass_on!(node, VmsClient<_>, get_vm_usage, request),
        }
    }

    async fn migrate_vm(
        &self,
        request: Request<v1::MigrateVmRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let (wish, priority) = convert::vm::read_migration(&message).map_err(errors::rejected)?;
        let project = project(&message.project)?;
        let migrated = self.change(Role::Operator, mutation, &message, |state, operation| {
            let row = vm(state, &project, &message.vm);
            let row = row.ok_or_else(|| not_found("VM", &message.vm))?;
            let to = match message.host.as_str() {
                "" => None,
                text => Some(host(state, text).ok_or_else(|| not_found("host", text))?.id),
            };
            Ok(Command::Vm(VmCommand::Migrate { vm: row.id, to, wish, priority, operation }))
        });
        Ok(answer(migrated.await?))
    }

    async fn explain_vm(
        &self,
        request: Request<v1::ExplainVmRequest>,
    ) -> Result<Response<v1::ExplainVmResponse>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let project = project(&message.project)?;
        let view = self.view(message.freshness.as_ref()).await?;
        let state = &view.state;
        let row = vm(state, &project, &message.vm)
            .ok_or_else(|| errors::rejected(not_found("VM", &message.vm)))?;
        let only = match message.host.as_str() {
            "" => None,
            text => {
                let found = super::hosts::host(state, text).map(|host| host.id);
                Some(found.ok_or_else(|| errors::rejected(not_found("host", text)))?)
            }
        };
        let verdicts = planner::place::verdicts(state, row).into_iter();
        let verdicts = verdicts.filter(|verdict| only.is_none_or(|only| only == verdict.host));
        let hosts = verdicts.filter_map(|verdict| {
            Some(v1::HostVerdict {
                host: state.hosts.get(&verdict.host)?.name.to_string(),
                here: verdict.here,
                fits: verdict.refusals.is_empty(),
                reasons: verdict.refusals,
                free_ppm: u32::try_from(verdict.free_ppm).unwrap_or(u32::MAX),
            })
        });
        Ok(Response::new(v1::ExplainVmResponse {
            message: convert::vm::trouble(state, row).unwrap_or_default(),
            hosts: hosts.collect(),
        }))
    }

    async fn plan_vms(
        &self,
        request: Request<v1::PlanVmsRequest>,
    ) -> Result<Response<v1::PlanVmsResponse>, Status> {
        Ok(Response::new(self.plan(request.into_inner()).await?))
    }

    async fn delete_vm(
        &self,
        request: Request<v1::DeleteVmRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let of = (message.project.as_str(), message.vm.as_str());
        self.change_vm(mutation, &message, of, |vm, operation| {
            Ok(VmCommand::Delete { vm, etag: etag(message.etag), operation })
        })
        .await
    }
}

/// A verb whose message says nothing but the VM. The verb's name goes into the digest: the same
/// request id for another verb is another request.
#[derive(Clone, PartialEq, prost::Message)]
struct Verb {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    project: String,
    #[prost(string, tag = "3")]
    vm: String,
}

impl Api {
    async fn act(
        &self,
        request: Request<v1::VmActionRequest>,
        verb: &str,
        command: impl Fn(VmId, OperationId) -> VmCommand + Send + Sync,
    ) -> Result<Response<v1::Outcome>, Status> {
        let message = request.into_inner();
        let verb = Verb {
            name: verb.to_owned(),
            project: message.project.clone(),
            vm: message.vm.clone(),
        };
        let of = (message.project.as_str(), message.vm.as_str());
        self.change_vm(message.mutation, &verb, of, |vm, operation| Ok(command(vm, operation)))
            .await
    }
}

/// A VM as somebody of this role may see it: what its guest is told at its start may hold secrets, which viewers do
/// not read.
pub(super) fn shown_to(role: Role, mut vm: v1::Vm) -> v1::Vm {
    if role < Role::Operator
        && let Some(spec) = &mut vm.spec
    {
        spec.user_data.clear();
        spec.cmdline.clear();
    }
    vm
}

fn lazily<'a>(
    state: &'a State,
    role: Role,
    project: &'a Name,
    first: Option<Name>,
) -> impl Iterator<Item = Lazy<'a, v1::Vm>> {
    state.vms_from(project, first).map(move |vm| {
        let row = move || shown_to(role, convert::vm::vm(state, vm));
        Lazy::new(format!("{project}\0{}", vm.name), row)
    })
}
