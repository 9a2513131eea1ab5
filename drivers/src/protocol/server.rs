//! The driver's side.

use std::{os::unix::fs::PermissionsExt, path::Path, pin::Pin, sync::Arc};

use domain::{Fence, id::VmId};
use futures_util::{Stream, StreamExt};
use proto::driver::{
    self as pb,
    driver_server::{Driver as Service, DriverServer},
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tonic::{Request, Response, Status};

use super::{
    PROTOCOL, path_text, protocol, read_departure, read_order, status, vm, write_observation,
};
use crate::{Driver, DriverError, Foreign, Migration, migration::cannot_migrate};

/// Serves `driver` on a Unix socket that only this user may use, until the process ends.
///
/// # Errors
/// When the socket cannot be made.
pub async fn serve(driver: Arc<dyn Driver>, socket: &Path) -> std::io::Result<()> {
    // A socket that a dead process left behind; the caller holds the lock that says it is dead.
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    tonic::transport::Server::builder()
        .add_service(DriverServer::new(Adapter(driver)))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
        .map_err(std::io::Error::other)
}

struct Adapter(Arc<dyn Driver>);

fn done(result: Result<(), DriverError>) -> Result<Response<pb::Done>, Status> {
    result.map(|()| Response::new(pb::Done {})).map_err(|error| status(&error))
}

fn target(call: &pb::Call) -> Result<(VmId, Fence), Status> {
    let id = vm(&call.vm).map_err(|error| status(&error))?;
    Ok((id, Fence::from_u64(call.fence)))
}

impl Adapter {
    fn migration(&self) -> Result<&dyn Migration, Status> {
        self.0.migration().ok_or_else(|| status(&cannot_migrate()))
    }
}

#[tonic::async_trait]
impl Service for Adapter {
    async fn handshake(
        &self,
        request: Request<pb::HandshakeRequest>,
    ) -> Result<Response<pb::HandshakeResponse>, Status> {
        let theirs = request.into_inner().protocol;
        if theirs != PROTOCOL {
            let message = format!("the node speaks driver protocol {theirs}, this is {PROTOCOL}");
            return Err(Status::failed_precondition(message));
        }
        Ok(Response::new(pb::HandshakeResponse { protocol: PROTOCOL }))
    }

    async fn get_inventory(
        &self,
        _: Request<pb::InventoryRequest>,
    ) -> Result<Response<pb::Inventory>, Status> {
        let inventory = self.0.inventory().await.map_err(|error| status(&error))?;
        Ok(Response::new(pb::Inventory {
            kind: inventory.kind.to_string(),
            cpu_millicores: inventory.capacity.cpu_millicores,
            memory_mib: inventory.capacity.memory_mib,
            disk_mib: inventory.capacity.disk_mib,
            boot: inventory.boot.to_string(),
            foreign: inventory.foreign,
            guard: inventory.guard.map(|guard| guard.display().to_string()).unwrap_or_default(),
        }))
    }

    async fn observe(
        &self,
        request: Request<pb::ObserveRequest>,
    ) -> Result<Response<pb::Observation>, Status> {
        let id = vm(&request.into_inner().vm).map_err(|error| status(&error))?;
        let seen = self.0.observe(id).await.map_err(|error| status(&error))?;
        Ok(Response::new(write_observation(&seen)))
    }

    async fn observe_all(
        &self,
        _: Request<pb::ObserveAllRequest>,
    ) -> Result<Response<pb::Observations>, Status> {
        let seen = self.0.observe_all().await.map_err(|error| status(&error))?;
        let bodies = seen.iter().map(write_observation).collect();
        Ok(Response::new(pb::Observations { bodies }))
    }

    async fn prepare(&self, request: Request<pb::Order>) -> Result<Response<pb::Done>, Status> {
        let order = read_order(request.get_ref()).map_err(|error| status(&error))?;
        done(self.0.prepare(&order).await)
    }

    async fn start(&self, request: Request<pb::Order>) -> Result<Response<pb::Done>, Status> {
        let order = read_order(request.get_ref()).map_err(|error| status(&error))?;
        done(self.0.start(&order).await)
    }

    async fn receive(&self, request: Request<pb::Order>) -> Result<Response<pb::Landing>, Status> {
        let order = read_order(request.get_ref()).map_err(|error| status(&error))?;
        let landing = self.migration()?.receive(&order).await.map_err(|error| status(&error))?;
        let (address, definition) = (landing.address, landing.definition);
        Ok(Response::new(pb::Landing { address, definition }))
    }

    async fn send(&self, request: Request<pb::Departure>) -> Result<Response<pb::Done>, Status> {
        let departure = read_departure(request.into_inner()).map_err(|error| status(&error))?;
        done(self.migration()?.send(&departure).await)
    }

    async fn abort(&self, request: Request<pb::Call>) -> Result<Response<pb::Done>, Status> {
        let (id, fence) = target(request.get_ref())?;
        done(self.migration()?.abort(id, fence).await)
    }

    async fn get_progress(
        &self,
        request: Request<pb::ProgressRequest>,
    ) -> Result<Response<pb::Progress>, Status> {
        let id = vm(&request.get_ref().vm).map_err(|error| status(&error))?;
        let seen = self.migration()?.progress(id).await.map_err(|error| status(&error))?;
        Ok(Response::new(seen.map_or_else(pb::Progress::default, |seen| pb::Progress {
            sending: true,
            total_bytes: seen.total_bytes,
            remaining_bytes: seen.remaining_bytes,
            dirty_bytes_s: seen.dirty_bytes_s,
            rounds: seen.rounds,
            downtime_ms: seen.downtime_ms,
            downtime_max_ms: seen.downtime_max_ms,
        })))
    }

    async fn get_answer(
        &self,
        request: Request<pb::AnswerRequest>,
    ) -> Result<Response<pb::Answer>, Status> {
        let id = vm(&request.get_ref().vm).map_err(|error| status(&error))?;
        let answer = self.migration()?.answers(id).await.map_err(|error| status(&error))?;
        let (has_agent, answers) = (answer.is_some(), answer.unwrap_or_default());
        Ok(Response::new(pb::Answer { has_agent, answers }))
    }

    async fn shutdown(&self, request: Request<pb::Call>) -> Result<Response<pb::Done>, Status> {
        let (id, fence) = target(request.get_ref())?;
        done(self.0.shutdown(id, fence).await)
    }

    async fn kill(&self, request: Request<pb::Call>) -> Result<Response<pb::Done>, Status> {
        let (id, fence) = target(request.get_ref())?;
        done(self.0.kill(id, fence).await)
    }

    async fn reboot(&self, request: Request<pb::Call>) -> Result<Response<pb::Done>, Status> {
        let (id, fence) = target(request.get_ref())?;
        done(self.0.reboot(id, fence).await)
    }

    async fn pause(&self, request: Request<pb::Call>) -> Result<Response<pb::Done>, Status> {
        let (id, fence) = target(request.get_ref())?;
        done(self.0.pause(id, fence).await)
    }

    async fn resume(&self, request: Request<pb::Resumption>) -> Result<Response<pb::Done>, Status> {
        let pb::Resumption { vm, fence, lease } = request.into_inner();
        let (id, fence) = target(&pb::Call { vm, fence })?;
        done(self.0.resume(id, fence, Fence::from_u64(lease)).await)
    }

    async fn release(&self, request: Request<pb::Call>) -> Result<Response<pb::Done>, Status> {
        let (id, fence) = target(request.get_ref())?;
        done(self.0.release(id, fence).await)
    }

    async fn get_pools(&self, _: Request<pb::PoolsRequest>) -> Result<Response<pb::Pools>, Status> {
        let pools = self.0.pools().await.map_err(|error| status(&error))?;
        let pools = pools.iter().map(|(name, id)| (name.to_string(), id.to_string())).collect();
        Ok(Response::new(pb::Pools { pools }))
    }

    async fn discard(
        &self,
        request: Request<pb::DiscardRequest>,
    ) -> Result<Response<pb::Done>, Status> {
        let request = request.into_inner();
        let id = vm(&request.vm).map_err(|error| status(&error))?;
        let pool =
            domain::name::Name::new(&request.pool).map_err(|error| status(&protocol(error)))?;
        let identity = request.identity.parse().map_err(|error| status(&protocol(error)))?;
        done(self.0.discard(id, Fence::from_u64(request.fence), &pool, identity).await)
    }

    type ChangesStream = Pin<Box<dyn Stream<Item = Result<pb::Change, Status>> + Send>>;

    async fn changes(
        &self,
        _: Request<pb::ChangesRequest>,
    ) -> Result<Response<Self::ChangesStream>, Status> {
        // Whoever lags misses some, and observes all anyway.
        let changes = BroadcastStream::new(self.0.changes()).filter_map(|change| async move {
            change.ok().map(|vm| Ok(pb::Change { vm: vm.to_string() }))
        });
        Ok(Response::new(Box::pin(changes)))
    }

    async fn get_console_log(
        &self,
        request: Request<pb::ConsoleLogRequest>,
    ) -> Result<Response<pb::ConsoleLog>, Status> {
        let request = request.into_inner();
        let id = vm(&request.vm).map_err(|error| status(&error))?;
        let bytes_max = usize::try_from(request.bytes_max).unwrap_or(usize::MAX);
        let read = self.0.console_log(id, request.offset, bytes_max).await;
        let (data, next_offset) = read.map_err(|error| status(&error))?;
        Ok(Response::new(pb::ConsoleLog { data: data.into(), next_offset }))
    }

    async fn get_console_socket(
        &self,
        request: Request<pb::ConsoleSocketRequest>,
    ) -> Result<Response<pb::ConsoleSocket>, Status> {
        let id = vm(&request.get_ref().vm).map_err(|error| status(&error))?;
        let path = self.0.console_socket(id).await.map_err(|error| status(&error))?;
        Ok(Response::new(pb::ConsoleSocket { path: path_text(&path) }))
    }

    async fn get_usage(
        &self,
        request: Request<pb::UsageRequest>,
    ) -> Result<Response<pb::Usage>, Status> {
        let id = vm(&request.get_ref().vm).map_err(|error| status(&error))?;
        let usage = self.0.usage(id).await.map_err(|error| status(&error))?;
        Ok(Response::new(pb::Usage {
            cpu_ns: usage.cpu_ns,
            memory_mib: usage.memory_mib,
            disk_read_bytes: usage.disk_read_bytes,
            disk_written_bytes: usage.disk_written_bytes,
            network_received_bytes: usage.network_received_bytes,
            network_sent_bytes: usage.network_sent_bytes,
        }))
    }

    async fn list_foreign(
        &self,
        _: Request<pb::ForeignRequest>,
    ) -> Result<Response<pb::Foreigners>, Status> {
        let domains = self.0.foreign().await.map_err(|error| status(&error))?.into_iter();
        let domains =
            domains.map(|Foreign { name, uuid, running }| pb::Foreign { name, uuid, running });
        Ok(Response::new(pb::Foreigners { domains: domains.collect() }))
    }
}
