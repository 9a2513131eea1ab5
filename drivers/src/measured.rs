//! A driver whose calls are counted, timed and traced. It changes nothing else.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Instant};

use async_trait::async_trait;
use domain::{
    Fence,
    id::{PoolId, VmId},
    instance::Landing,
    name::Name,
    operation::Progress,
};
use telemetry::trace::{self, Span};
use tokio::sync::broadcast;

use crate::{
    Departure, Driver, DriverError, Foreign, Inventory, Migration, Observation, Order, Usage,
    cannot_migrate, metrics,
};

/// See the module.
pub struct Measured {
    kind: &'static str,
    driver: Arc<dyn Driver>,
}

impl Measured {
    /// Counts the calls of `driver`, which is of this kind.
    #[must_use]
    pub fn new(kind: &'static str, driver: Arc<dyn Driver>) -> Measured {
        Measured { kind, driver }
    }

    async fn call<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, DriverError>>,
    ) -> Result<T, DriverError> {
        let begun = Instant::now();
        let mut under_way = UnderWay { driver: self.kind, name, begun, outcome: "given_up" };
        let answer = call.await;
        under_way.outcome = answer.as_ref().map_or_else(|error| error.kind.as_str(), |_| "ok");
        answer
    }

    /// A call that does something: it shows in the trace of what it is done for.
    async fn act<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, DriverError>>,
    ) -> Result<T, DriverError> {
        let mut span =
            trace::current().and_then(|place| Span::below(place, format!("driver.{name}")));
        let answer = self.call(name, call).await;
        if let Some(span) = &mut span {
            span.say("novacron.driver", self.kind);
            if let Err(error) = &answer {
                span.fail(error.to_string());
            }
        }
        answer
    }

    fn mover(&self) -> Result<&dyn Migration, DriverError> {
        self.driver.migration().ok_or_else(cannot_migrate)
    }
}

/// A call that is counted when it ends, also when nobody waits for it any more.
struct UnderWay {
    driver: &'static str,
    name: &'static str,
    begun: Instant,
    outcome: &'static str,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let took = self.begun.elapsed().as_secs_f64();
        metrics::CALLS.of([self.driver, self.name, self.outcome]).increment(1);
        metrics::CALL_SECONDS.of([self.driver, self.name]).record(took);
    }
}

#[async_trait]
impl Driver for Measured {
    async fn inventory(&self) -> Result<Inventory, DriverError> {
        self.call("inventory", self.driver.inventory()).await
    }

    async fn observe(&self, vm: VmId) -> Result<Observation, DriverError> {
        self.call("observe", self.driver.observe(vm)).await
    }

    async fn observe_all(&self) -> Result<Vec<Observation>, DriverError> {
        self.call("observe_all", self.driver.observe_all()).await
    }

    async fn prepare(&self, order: &Order) -> Result<(), DriverError> {
        self.act("prepare", self.driver.prepare(order)).await
    }

    async fn start(&self, order: &Order) -> Result<(), DriverError> {
        self.act("start", self.driver.start(order)).await
    }

    async fn shutdown(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        self.act("shutdown", self.driver.shutdown(vm, fence)).await
    }

    async fn kill(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        self.act("kill", self.driver.kill(vm, fence)).await
    }

    async fn reboot(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        self.act("reboot", self.driver.reboot(vm, fence)).await
    }

    async fn pause(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        self.act("pause", self.driver.pause(vm, fence)).await
    }

    async fn resume(&self, vm: VmId, fence: Fence, lease: Fence) -> Result<(), DriverError> {
        self.act("resume", self.driver.resume(vm, fence, lease)).await
    }

    async fn release(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        self.act("release", self.driver.release(vm, fence)).await
    }

    async fn pools(&self) -> Result<BTreeMap<Name, PoolId>, DriverError> {
        self.call("pools", self.driver.pools()).await
    }

    async fn discard(
        &self,
        vm: VmId,
        fence: Fence,
        pool: &Name,
        identity: PoolId,
    ) -> Result<(), DriverError> {
        self.act("discard", self.driver.discard(vm, fence, pool, identity)).await
    }

    fn changes(&self) -> broadcast::Receiver<VmId> {
        self.driver.changes()
    }

    async fn console_log(
        &self,
        vm: VmId,
        offset: u64,
        bytes_max: usize,
    ) -> Result<(Vec<u8>, u64), DriverError> {
        self.call("console_log", self.driver.console_log(vm, offset, bytes_max)).await
    }

    async fn console_socket(&self, vm: VmId) -> Result<PathBuf, DriverError> {
        self.call("console_socket", self.driver.console_socket(vm)).await
    }

    async fn usage(&self, vm: VmId) -> Result<Usage, DriverError> {
        self.call("usage", self.driver.usage(vm)).await
    }

    fn migration(&self) -> Option<&dyn Migration> {
        self.driver.migration().is_some().then_some(self)
    }

    async fn foreign(&self) -> Result<Vec<Foreign>, DriverError> {
        self.call("foreign", self.driver.foreign()).await
    }
}

#[async_trait]
impl Migration for Measured {
    async fn receive(&self, order: &Order) -> Result<Landing, DriverError> {
        self.act("receive", self.mover()?.receive(order)).await
    }

    async fn send(&self, departure: &Departure) -> Result<(), DriverError> {
        self.act("send", self.mover()?.send(departure)).await
    }

    async fn abort(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        self.act("abort", self.mover()?.abort(vm, fence)).await
    }

    async fn progress(&self, vm: VmId) -> Result<Option<Progress>, DriverError> {
        self.call("progress", self.mover()?.progress(vm)).await
    }

    async fn answers(&self, vm: VmId) -> Result<Option<bool>, DriverError> {
        self.call("answers", self.mover()?.answers(vm)).await
    }
}
