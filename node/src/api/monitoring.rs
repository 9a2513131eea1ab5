//! What VMs and hosts use: each node has what it measured; whoever is asked asks the others.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actors::{Measured, Sample, Step};
use domain::{State, id::HostId, name::Name, principal::Role};
use futures_util::future::join_all;
use proto::{
    convert, v1,
    v1::{monitoring_client::MonitoringClient, monitoring_server::Monitoring},
};
use raft_store::View;
use tonic::{Code, Request, Response, Status, metadata::MetadataMap};

use super::{Api, auth, change::not_found, errors, relay};
use crate::clock::wall_ms;

/// How long another node may take: what it has is missing then.
const PATIENCE: Duration = Duration::from_secs(3);
/// How far back is told, if nobody says.
const SINCE_S: u64 = 3_600;

/// Asks the other nodes the same, all at once: their answers, and who did not answer.
macro_rules! ask {
    ($others:expr, $method:ident, $message:expr) => {{
        let asked = $others.into_iter().map(|(name, node)| {
            let message = $message.clone();
            async move {
                let answer = node.client().call(message, async |channel, mut request| {
                    relay::mark(&mut request);
                    MonitoringClient::new(channel)
                        .max_decoding_message_size(client::MESSAGE_BYTES_MAX)
                        .$method(request)
                        .await
                });
                (name, answer.await)
            }
        });
        parted(join_all(asked).await)
    }};
}

/// The answers, and who gave none.
fn parted<A>(asked: Vec<(String, Result<A, client::Error>)>) -> (Vec<A>, Vec<String>) {
    let (mut answers, mut silent) = (Vec::new(), Vec::new());
    for (name, answer) in asked {
        match answer {
            Ok(answer) => answers.push(answer),
            // It has not heard of it yet, so it has nothing of it.
            Err(client::Error::Refused(status)) if status.code() == Code::NotFound => {}
            Err(error) => {
                tracing::debug!(%name, %error, "a node did not say what its hosts use");
                silent.push(name);
            }
        }
    }
    (answers, silent)
}

#[tonic::async_trait]
impl Monitoring for Api {
    async fn get_vm_metrics(
        &self,
        request: Request<v1::GetVmMetricsRequest>,
    ) -> Result<Response<v1::Series>, Status> {
        auth::caller(Role::Viewer)?;
        let (metadata, _, message) = request.into_parts();
        let view = self.seen(&metadata, message.freshness.as_ref()).await?;
        let project = super::project(&message.project)?;
        let row = super::vm(&view.state, &project, &message.vm);
        let id = row.ok_or_else(|| errors::rejected(not_found("VM", &message.vm)))?.id;
        let window = Window::of(message.since_seconds, message.step_seconds)?;
        let own = self.measured(Measured::Vm(id), window).await?;
        // It may have been on any host.
        let others = self.neighbours(&view.state, &metadata, PATIENCE);
        let (others, silent) = ask!(others, get_vm_metrics, message);
        Ok(Response::new(window.series(own, others, silent)))
    }

    async fn get_host_metrics(
        &self,
        request: Request<v1::GetHostMetricsRequest>,
    ) -> Result<Response<v1::Series>, Status> {
        auth::caller(Role::Viewer)?;
        let (metadata, _, message) = request.into_parts();
        let view = self.seen(&metadata, message.freshness.as_ref()).await?;
        let host = super::find(
            &message.host,
            |id: HostId| view.state.hosts.get(&id),
            |name| view.state.host_named(&name),
        );
        let id = host.ok_or_else(|| errors::rejected(not_found("host", &message.host)))?.id;
        let window = Window::of(message.since_seconds, message.step_seconds)?;
        let own = self.measured(Measured::Host(id), window).await?;
        let others = self.neighbours(&view.state, &metadata, PATIENCE);
        let (others, silent) = ask!(others, get_host_metrics, message);
        Ok(Response::new(window.series(own, others, silent)))
    }

    async fn list_vm_use(
        &self,
        request: Request<v1::ListUseRequest>,
    ) -> Result<Response<v1::ListUseResponse>, Status> {
        auth::caller(Role::Viewer)?;
        let (metadata, _, message) = request.into_parts();
        let view = self.seen(&metadata, message.freshness.as_ref()).await?;
        let project = match message.project.as_str() {
            // As in other lists.
            "" | "-" => None,
            text => Some(convert::name("project", text).map_err(errors::rejected)?),
        };
        let own = self.vm_use(&view.state, project.as_ref());
        let others = self.neighbours(&view.state, &metadata, PATIENCE);
        let (others, silent) = ask!(others, list_vm_use, message);
        Ok(Response::new(together(own, others, silent)))
    }

    async fn list_host_use(
        &self,
        request: Request<v1::ListUseRequest>,
    ) -> Result<Response<v1::ListUseResponse>, Status> {
        auth::caller(Role::Viewer)?;
        let (metadata, _, message) = request.into_parts();
        let view = self.seen(&metadata, message.freshness.as_ref()).await?;
        let own = self.host_use(&view.state);
        let others = self.neighbours(&view.state, &metadata, PATIENCE);
        let (others, silent) = ask!(others, list_host_use, message);
        Ok(Response::new(together(own, others, silent)))
    }
}

/// From when to when, and how far apart.
#[derive(Clone, Copy)]
struct Window {
    step: Step,
    from_s: u64,
    to_s: u64,
}

impl Window {
    fn of(since_s: u32, step_s: u32) -> Result<Window, Status> {
        let since_s = if since_s == 0 { SINCE_S } else { since_s.into() };
        let step = match step_s {
            0 => Step::reaching(since_s),
            seconds => {
                let seconds = u64::from(seconds);
                let known = Step::ALL.into_iter().find(|step| step.seconds() == seconds);
                known.ok_or_else(|| {
                    errors::rejected(convert::invalid("step_seconds", "use 10, 60 or 600"))
                })?
            }
        };
        let to_s = wall_ms() / 1_000;
        Ok(Window { step, from_s: to_s.saturating_sub(since_s), to_s })
    }

    /// All samples, each time once.
    fn series(
        self,
        own: Vec<(u64, Sample)>,
        others: Vec<v1::Series>,
        silent: Vec<String>,
    ) -> v1::Series {
        let others = others.into_iter().flat_map(|series| series.samples);
        let mut samples: BTreeMap<u64, v1::Sample> =
            others.map(|sample| (sample.at, sample)).collect();
        samples.extend(own.into_iter().map(|(at_s, found)| (at_s, sample(at_s, found))));
        v1::Series {
            step_seconds: u32::try_from(self.step.seconds()).unwrap_or(u32::MAX),
            samples: samples.into_values().collect(),
            silent,
            until: self.to_s,
        }
    }
}

fn sample(at_s: u64, sample: Sample) -> v1::Sample {
    v1::Sample {
        at: at_s,
        cpus: sample.cpus,
        memory_bytes: sample.memory_bytes,
        disk_read_bytes_per_second: sample.disk_read,
        disk_written_bytes_per_second: sample.disk_written,
        received_bytes_per_second: sample.received,
        sent_bytes_per_second: sample.sent,
    }
}

fn together(
    own: Vec<v1::Use>,
    others: Vec<v1::ListUseResponse>,
    silent: Vec<String>,
) -> v1::ListUseResponse {
    let mut uses = own;
    uses.extend(others.into_iter().flat_map(|answer| answer.uses));
    uses.sort_by(|one, other| (&one.project, &one.name).cmp(&(&other.project, &other.name)));
    v1::ListUseResponse { uses, silent }
}

impl Api {
    /// A view for what is asked: what there is to be found was looked for by who passed it on.
    async fn seen(
        &self,
        metadata: &MetadataMap,
        freshness: Option<&v1::Freshness>,
    ) -> Result<Arc<View>, Status> {
        if relay::is_passed_on(metadata) {
            return Ok(self.store.view());
        }
        self.view(freshness).await
    }

    async fn measured(&self, of: Measured, window: Window) -> Result<Vec<(u64, Sample)>, Status> {
        let monitor = self.monitor.clone();
        let read = move || monitor.read(of, window.step, window.from_s, window.to_s);
        let read = tokio::task::spawn_blocking(read).await;
        let read = read.map_err(|error| Status::internal(error.to_string()))?;
        read.map_err(|error| Status::internal(format!("what was measured cannot be read: {error}")))
    }

    fn vm_use(&self, state: &State, project: Option<&Name>) -> Vec<v1::Use> {
        let newest = self.monitor.newest().into_iter();
        let uses = newest.filter_map(|(of, (at_s, found))| {
            let Measured::Vm(id) = of else { return None };
            let vm = state.vms.get(&id).filter(|vm| project.is_none_or(|it| *it == vm.project))?;
            let body = state.instance_of(id)?;
            // What was measured here before it moved is told there.
            let host = state.hosts.get(&body.host).filter(|host| host.node == self.store.node())?;
            Some(v1::Use {
                project: vm.project.to_string(),
                name: vm.name.to_string(),
                host: host.name.to_string(),
                sample: Some(sample(at_s, found)),
            })
        });
        uses.collect()
    }

    fn host_use(&self, state: &State) -> Vec<v1::Use> {
        let newest = self.monitor.newest().into_iter();
        let uses = newest.filter_map(|(of, (at_s, found))| {
            let Measured::Host(id) = of else { return None };
            let name = state.hosts.get(&id)?.name.to_string();
            let sample = Some(sample(at_s, found));
            Some(v1::Use { name, sample, ..Default::default() })
        });
        uses.collect()
    }
}
