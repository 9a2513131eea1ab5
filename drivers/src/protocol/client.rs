//! The node's side.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use domain::{
    Fence,
    host::Capacity,
    id::{PoolId, VmId},
    instance::Landing,
    name::Name,
    operation::Progress,
};
use proto::driver::{self as pb, driver_client::DriverClient};
use tokio::{net::UnixStream, sync::broadcast};
use tonic::transport::{Channel, Endpoint};

use super::{PROTOCOL, failure, protocol, read_observation, write_departure, write_order};
use crate::{
    Departure, Driver, DriverError, ErrorKind, FOREIGN_MAX, Foreign, Inventory, Migration,
    Observation, Order, Usage,
};

/// A driver in another process. It is connected to when it is used, and again when it was restarted.
pub struct RemoteDriver {
    client: DriverClient<Channel>,
    changes: broadcast::Sender<VmId>,
    listening: tokio::task::JoinHandle<()>,
}

/// Changes that may wait for a slow listener; it looks over everything when it missed some.
const CHANGES: usize = 1_024;

impl RemoteDriver {
    /// A driver that listens on `socket`, now or later.
    #[must_use]
    pub fn new(socket: &Path) -> RemoteDriver {
        let socket = socket.to_owned();
        let connector = tower::service_fn(move |_: tonic::transport::Uri| {
            let socket = socket.clone();
            async move {
                let stream = UnixStream::connect(socket).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        let channel = Endpoint::from_static("http://driver").connect_with_connector_lazy(connector);
        let client = DriverClient::new(channel);
        let (changes, _) = broadcast::channel(CHANGES);
        let listening = tokio::spawn(listen(client.clone(), changes.clone()));
        RemoteDriver { client, changes, listening }
    }

    fn call(vm: VmId, fence: Fence) -> pb::Call {
        pb::Call { vm: vm.to_string(), fence: fence.as_u64() }
    }
}

impl Drop for RemoteDriver {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Passes on what the driver says has changed, over its restarts.
async fn listen(mut client: DriverClient<Channel>, changes: broadcast::Sender<VmId>) {
    const PAUSE: Duration = Duration::from_millis(500);
    loop {
        if let Ok(stream) = client.changes(pb::ChangesRequest {}).await {
            let mut stream = stream.into_inner();
            while let Ok(Some(change)) = stream.message().await {
                if let Ok(vm) = change.vm.parse() {
                    let _ = changes.send(vm);
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A call, whose failure is told by its kind.
macro_rules! call {
    ($self:ident.$method:ident($message:expr)) => {
        $self
            .client
            .clone()
            .$method($message)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| failure(&status))
    };
}

#[async_trait]
impl Driver for RemoteDriver {
    async fn inventory(&self) -> Result<Inventory, DriverError> {
        let hello = call!(self.handshake(pb::HandshakeRequest { protocol: PROTOCOL }))?;
        if hello.protocol != PROTOCOL {
            let message = format!("the driver speaks protocol {}, not {PROTOCOL}", hello.protocol);
            return Err(DriverError::new(ErrorKind::Protocol, message));
        }
        let inventory = call!(self.get_inventory(pb::InventoryRequest {}))?;
        Ok(Inventory {
            kind: Name::new(&inventory.kind).map_err(protocol)?,
            capacity: Capacity {
                cpu_millicores: inventory.cpu_millicores,
                memory_mib: inventory.memory_mib,
                disk_mib: inventory.disk_mib,
            },
            boot: inventory.boot.parse().map_err(protocol)?,
            foreign: inventory.foreign,
            guard: Some(inventory.guard).filter(|guard| !guard.is_empty()).map(Into::into),
        })
    }

    async fn observe(&self, vm: VmId) -> Result<Observation, DriverError> {
        let request = pb::ObserveRequest { vm: vm.to_string() };
        read_observation(&call!(self.observe(request))?)
    }

    async fn observe_all(&self) -> Result<Vec<Observation>, DriverError> {
        let seen = call!(self.observe_all(pb::ObserveAllRequest {}))?;
        seen.bodies.iter().map(read_observation).collect()
    }

    async fn prepare(&self, order: &Order) -> Result<(), DriverError> {
        call!(self.prepare(write_order(order))).map(drop)
    }

    async fn start(&self, order: &Order) -> Result<(), DriverError> {
        call!(self.start(write_order(order))).map(drop)
    }

    async fn shutdown(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        call!(self.shutdown(RemoteDriver::call(vm, fence))).map(drop)
    }

    async fn kill(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        call!(self.kill(RemoteDriver::call(vm, fence))).map(drop)
    }

    async fn reboot(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        call!(self.reboot(RemoteDriver::call(vm, fence))).map(drop)
    }

    async fn pause(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        call!(self.pause(RemoteDriver::call(vm, fence))).map(drop)
    }

    async fn resume(&self, vm: VmId, fence: Fence, lease: Fence) -> Result<(), DriverError> {
        let call =
            pb::Resumption { vm: vm.to_string(), fence: fence.as_u64(), lease: lease.as_u64() };
        call!(self.resume(call)).map(drop)
    }

    async fn release(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        call!(self.release(RemoteDriver::call(vm, fence))).map(drop)
    }

    async fn pools(&self) -> Result<BTreeMap<Name, PoolId>, DriverError> {
        let pools = call!(self.get_pools(pb::PoolsRequest {}))?.pools;
        let read = |(name, id): (String, String)| {
            Ok((Name::new(&name).map_err(protocol)?, id.parse().map_err(protocol)?))
        };
        pools.into_iter().map(read).collect()
    }

    async fn discard(
        &self,
        vm: VmId,
        fence: Fence,
        pool: &Name,
        identity: PoolId,
    ) -> Result<(), DriverError> {
        let (vm, fence) = (vm.to_string(), fence.as_u64());
        let (pool, identity) = (pool.to_string(), identity.to_string());
        call!(self.discard(pb::DiscardRequest { vm, fence, pool, identity })).map(drop)
    }

    fn changes(&self) -> broadcast::Receiver<VmId> {
        self.changes.subscribe()
    }

    async fn console_log(
        &self,
        vm: VmId,
        offset: u64,
        bytes_max: usize,
    ) -> Result<(Vec<u8>, u64), DriverError> {
        let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX);
        let request = pb::ConsoleLogRequest { vm: vm.to_string(), offset, bytes_max };
        let log = call!(self.get_console_log(request))?;
        Ok((log.data.to_vec(), log.next_offset))
    }

    async fn console_socket(&self, vm: VmId) -> Result<PathBuf, DriverError> {
        let request = pb::ConsoleSocketRequest { vm: vm.to_string() };
        call!(self.get_console_socket(request)).map(|socket| socket.path.into())
    }

    fn migration(&self) -> Option<&dyn Migration> {
        Some(self)
    }

    async fn usage(&self, vm: VmId) -> Result<Usage, DriverError> {
        let usage = call!(self.get_usage(pb::UsageRequest { vm: vm.to_string() }))?;
        Ok(Usage {
            cpu_ns: usage.cpu_ns,
            memory_mib: usage.memory_mib,
            disk_read_bytes: usage.disk_read_bytes,
            disk_written_bytes: usage.disk_written_bytes,
            network_received_bytes: usage.network_received_bytes,
            network_sent_bytes: usage.network_sent_bytes,
        })
    }

    async fn foreign(&self) -> Result<Vec<Foreign>, DriverError> {
        let foreign = call!(self.list_foreign(pb::ForeignRequest {}))?.domains.into_iter();
        let foreign =
            foreign.map(|pb::Foreign { name, uuid, running }| Foreign { name, uuid, running });
        Ok(foreign.take(FOREIGN_MAX).collect())
    }
}

#[async_trait]
impl Migration for RemoteDriver {
    async fn receive(&self, order: &Order) -> Result<Landing, DriverError> {
        let landing = call!(self.receive(write_order(order)))?;
        Ok(Landing { address: landing.address, definition: landing.definition })
    }

    async fn send(&self, departure: &Departure) -> Result<(), DriverError> {
        call!(self.send(write_departure(departure))).map(drop)
    }

    async fn abort(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        call!(self.abort(RemoteDriver::call(vm, fence))).map(drop)
    }

    async fn progress(&self, vm: VmId) -> Result<Option<Progress>, DriverError> {
        let seen = call!(self.get_progress(pb::ProgressRequest { vm: vm.to_string() }))?;
        Ok(seen.sending.then_some(Progress {
            total_bytes: seen.total_bytes,
            remaining_bytes: seen.remaining_bytes,
            dirty_bytes_s: seen.dirty_bytes_s,
            rounds: seen.rounds,
            downtime_ms: seen.downtime_ms,
            downtime_max_ms: seen.downtime_max_ms,
        }))
    }

    async fn answers(&self, vm: VmId) -> Result<Option<bool>, DriverError> {
        let answer = call!(self.get_answer(pb::AnswerRequest { vm: vm.to_string() }))?;
        Ok(answer.has_agent.then_some(answer.answers))
    }
}
