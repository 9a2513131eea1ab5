//! A simulated host: no hypervisor, but the same life, the same fences, latencies, and failures of
//! every kind on demand. From one seed it behaves the same every time.

mod faults;
mod guard;
mod migration;
mod random;

pub use faults::{Call, Faults};

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use domain::{
    Fence,
    host::Capacity,
    id::{BootId, PoolId, VmId},
    instance::{Body, Ended},
    name::Name,
    vm::Failover,
};
use tokio::sync::broadcast;

use crate::{
    Driver, DriverError, ErrorKind, Foreign, Inventory, Migration, Observation, Order, Usage,
};
use guard::Held;
use migration::{Sending, Shared};
use random::Random;

/// What a simulated host is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything random follows from it.
    pub seed: u64,
    /// What the machine has.
    pub capacity: Capacity,
    /// Least time a call takes, milliseconds.
    pub latency_ms_min: u64,
    /// Most time a call takes, milliseconds.
    pub latency_ms_max: u64,
    /// How long it takes to send a guest, milliseconds.
    pub copy_ms: u64,
    /// The pools that it sees, by name. Disks in them are as good as any.
    pub pools: BTreeMap<Name, PoolId>,
    /// Calls that fail, out of a thousand; the kind of failure is random too.
    pub failures_per_mille: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            seed: 0,
            capacity: Capacity { cpu_millicores: 256_000, memory_mib: 1 << 20, disk_mib: 1 << 30 },
            latency_ms_min: 1,
            latency_ms_max: 5,
            copy_ms: 100,
            pools: BTreeMap::new(),
            failures_per_mille: 0,
        }
    }
}

#[derive(Clone, Debug)]
struct Domain {
    body: Body,
    generation: Option<u32>,
    reboots: u32,
    starts: u32,
    console: Vec<u8>,
    name: Name,
    memory_mib: u64,
    failover: Failover,
}

impl Domain {
    fn fresh(order: &Order) -> Domain {
        Domain {
            body: Body::Ready,
            generation: None,
            reboots: 0,
            starts: 0,
            console: Vec::new(),
            name: order.name.clone(),
            memory_mib: u64::from(order.spec.memory_mib),
            failover: order.spec.failover,
        }
    }
}

#[derive(Debug, Default)]
struct World {
    domains: BTreeMap<VmId, Domain>,
    fences: BTreeMap<VmId, Fence>,
    sendings: BTreeMap<VmId, Arc<Sending>>,
    /// Nothing while there is no guard.
    held: Option<Held>,
}

/// A simulated host.
pub struct Simulator {
    options: Options,
    boot: BootId,
    shared: Arc<Shared>,
    faults: Mutex<Faults>,
    random: Mutex<Random>,
    booted: Instant,
}

impl Simulator {
    /// A host that has just booted.
    #[must_use]
    pub fn new(options: Options, boot: BootId) -> Simulator {
        let random = Mutex::new(Random::new(options.seed));
        let booted = Instant::now();
        Simulator { options, boot, shared: Shared::new(), faults: Mutex::default(), random, booted }
    }

    /// The failures that are planned; see [`Faults`].
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    /// Something happens to a guest without anybody asking: a crash, a shutdown from inside.
    pub fn befall(&self, vm: VmId, body: Body) {
        if let Some(domain) = lock(&self.shared.world).domains.get_mut(&vm) {
            domain.body = body;
        }
        let _ = self.shared.changes.send(vm);
    }

    /// Somebody with a shell on the host removes a domain.
    pub fn vanish(&self, vm: VmId) {
        lock(&self.shared.world).domains.remove(&vm);
        let _ = self.shared.changes.send(vm);
    }

    /// One call: it takes its time, may fail before or after its effect, and checks the fence.
    async fn call<T>(
        &self,
        call: Call,
        vm: VmId,
        fence: Fence,
        effect: impl FnOnce(&mut World) -> Result<T, DriverError> + Send,
    ) -> Result<T, DriverError> {
        let latency_ms =
            lock(&self.random).between(self.options.latency_ms_min, self.options.latency_ms_max);
        tokio::time::sleep(Duration::from_millis(latency_ms)).await;

        let fault = self.faults().take(call).or_else(|| self.chance());
        if let Some(kind) = fault
            && kind != ErrorKind::Ambiguous
        {
            return Err(DriverError::new(kind, format!("injected into {call:?}")));
        }
        let mut world = lock(&self.shared.world);
        world.expire();
        let seen = world.fences.entry(vm).or_default();
        if fence < *seen {
            let message = format!("fence {fence} is below {seen}");
            return Err(DriverError::new(ErrorKind::Fenced, message));
        }
        *seen = fence;
        let result = effect(&mut world);
        match fault {
            Some(kind) => Err(DriverError::new(kind, format!("answer of {call:?} lost"))),
            None => result,
        }
    }

    /// A failure by the configured chance. Permanent kinds are left to [`Faults`]: by chance they
    /// would end VMs for good and say nothing about the program.
    fn chance(&self) -> Option<ErrorKind> {
        const KINDS: [ErrorKind; 4] =
            [ErrorKind::Transient, ErrorKind::Throttled, ErrorKind::Conflict, ErrorKind::Ambiguous];
        let mut random = lock(&self.random);
        let fails = random.between(0, 999) < self.options.failures_per_mille;
        fails.then(|| KINDS[usize::try_from(random.between(0, 3)).unwrap_or(0)])
    }
}

/// A panic in another thread leaves the simulated world consistent: effects are single assignments.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn domain(world: &mut World, vm: VmId) -> Result<&mut Domain, DriverError> {
    let missing = || DriverError::new(ErrorKind::NotFound, format!("no domain {vm}"));
    world.domains.get_mut(&vm).ok_or_else(missing)
}

fn conflict(body: Body, wish: &str) -> DriverError {
    DriverError::new(ErrorKind::Conflict, format!("cannot {wish} a body that is {body:?}"))
}

#[async_trait]
impl Driver for Simulator {
    async fn inventory(&self) -> Result<Inventory, DriverError> {
        let kind = Name::new("simulator").expect("the literal is a name");
        let capacity = self.options.capacity;
        Ok(Inventory { kind, capacity, boot: self.boot, foreign: 0, guard: None })
    }

    async fn observe(&self, vm: VmId) -> Result<Observation, DriverError> {
        if let Some(kind) = self.faults().take(Call::Observe) {
            return Err(DriverError::new(kind, "injected into Observe"));
        }
        let mut world = lock(&self.shared.world);
        world.expire();
        let domain = world.domains.get(&vm);
        Ok(Observation {
            vm,
            fence: world.fences.get(&vm).copied().unwrap_or_default(),
            body: domain.map_or(Body::Absent, |domain| domain.body),
            generation: domain.and_then(|domain| domain.generation),
            reboots: domain.map_or(0, |domain| domain.reboots),
            starts: domain.map_or(0, |domain| domain.starts),
        })
    }

    async fn observe_all(&self) -> Result<Vec<Observation>, DriverError> {
        let ids: Vec<VmId> = lock(&self.shared.world).domains.keys().copied().collect();
        let mut all = Vec::with_capacity(ids.len());
        for id in ids {
            all.push(self.observe(id).await?);
        }
        Ok(all)
    }

    async fn prepare(&self, order: &Order) -> Result<(), DriverError> {
        self.call(Call::Prepare, order.vm, order.fence, |world| {
            let place = world.domains.entry(order.vm).or_insert_with(|| Domain::fresh(order));
            // The disks of a guest that was sent away are as good as new ones.
            if place.body == Body::Stopped(Ended::Migrated) {
                place.body = Body::Ready;
            }
            Ok(())
        })
        .await
    }

    async fn start(&self, order: &Order) -> Result<(), DriverError> {
        self.call(Call::Start, order.vm, order.fence, |world| {
            world.admit(order.lease)?;
            let domain = domain(world, order.vm)?;
            match domain.body {
                Body::Running => {}
                Body::Paused | Body::Incoming | Body::Arrived => {
                    return Err(conflict(domain.body, "start"));
                }
                Body::Absent | Body::Ready | Body::Stopped(_) => {
                    domain.body = Body::Running;
                    domain.generation = Some(order.generation);
                    domain.starts += 1;
                    domain.reboots = domain.reboots.max(order.reboots);
                    domain.failover = order.spec.failover;
                    let line = format!("GUEST-UP id={}\n", domain.name);
                    domain.console.extend_from_slice(line.as_bytes());
                }
            }
            Ok(())
        })
        .await
    }

    async fn shutdown(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        self.call(Call::Shutdown, vm, fence, |world| {
            let domain = domain(world, vm)?;
            match domain.body {
                Body::Running => domain.body = Body::Stopped(Ended::Shutdown),
                Body::Paused | Body::Incoming | Body::Arrived => {
                    return Err(conflict(domain.body, "shut down"));
                }
                Body::Absent | Body::Ready | Body::Stopped(_) => {}
            }
            Ok(())
        })
        .await?;
        let _ = self.shared.changes.send(vm);
        Ok(())
    }

    async fn kill(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        self.call(Call::Kill, vm, fence, |world| {
            let domain = domain(world, vm)?;
            if matches!(domain.body, Body::Running | Body::Paused | Body::Arrived) {
                domain.body = Body::Stopped(Ended::Killed);
            }
            Ok(())
        })
        .await
    }

    async fn reboot(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        self.call(Call::Reboot, vm, fence, |world| {
            let domain = domain(world, vm)?;
            if domain.body != Body::Running {
                return Err(conflict(domain.body, "reboot"));
            }
            domain.reboots += 1;
            Ok(())
        })
        .await
    }

    async fn pause(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        self.call(Call::Pause, vm, fence, |world| {
            let domain = domain(world, vm)?;
            match domain.body {
                Body::Running | Body::Paused => domain.body = Body::Paused,
                Body::Absent | Body::Ready | Body::Stopped(_) | Body::Incoming | Body::Arrived => {
                    return Err(conflict(domain.body, "pause"));
                }
            }
            Ok(())
        })
        .await
    }

    async fn resume(&self, vm: VmId, fence: Fence, lease: Fence) -> Result<(), DriverError> {
        self.call(Call::Resume, vm, fence, |world| {
            world.admit(lease)?;
            let domain = domain(world, vm)?;
            match domain.body {
                Body::Running | Body::Paused | Body::Arrived => domain.body = Body::Running,
                Body::Absent | Body::Ready | Body::Stopped(_) | Body::Incoming => {
                    return Err(conflict(domain.body, "resume"));
                }
            }
            Ok(())
        })
        .await
    }

    async fn release(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        self.call(Call::Release, vm, fence, |world| {
            world.domains.remove(&vm);
            Ok(())
        })
        .await
    }

    async fn pools(&self) -> Result<BTreeMap<Name, PoolId>, DriverError> {
        Ok(self.options.pools.clone())
    }

    async fn discard(
        &self,
        vm: VmId,
        fence: Fence,
        _: &Name,
        _: PoolId,
    ) -> Result<(), DriverError> {
        self.call(Call::Discard, vm, fence, |_| Ok(())).await
    }

    fn changes(&self) -> broadcast::Receiver<VmId> {
        self.shared.changes.subscribe()
    }

    async fn console_log(
        &self,
        vm: VmId,
        offset: u64,
        bytes_max: usize,
    ) -> Result<(Vec<u8>, u64), DriverError> {
        let mut world = lock(&self.shared.world);
        let console = &domain(&mut world, vm)?.console;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(console.len());
        let upto = from.saturating_add(bytes_max).min(console.len());
        Ok((console[from..upto].to_vec(), upto as u64))
    }

    async fn console_socket(&self, _: VmId) -> Result<PathBuf, DriverError> {
        let message = "a simulated guest has no console to type at";
        Err(DriverError::new(ErrorKind::Permanent, message))
    }

    fn migration(&self) -> Option<&dyn Migration> {
        Some(self)
    }

    async fn usage(&self, vm: VmId) -> Result<Usage, DriverError> {
        let mut world = lock(&self.shared.world);
        let domain = domain(&mut world, vm)?;
        if domain.body != Body::Running {
            return Ok(Usage::default());
        }
        // A simulated guest is always at work; its time is counted in steps.
        const STEP: Duration = Duration::from_millis(100);
        let steps = self.booted.elapsed().as_millis() / STEP.as_millis();
        let cpu_ns = u64::try_from(steps * STEP.as_nanos()).unwrap_or(u64::MAX);
        let memory_mib = domain.memory_mib;
        Ok(Usage { cpu_ns, memory_mib, ..Usage::default() })
    }

    async fn foreign(&self) -> Result<Vec<Foreign>, DriverError> {
        Ok(Vec::new())
    }
}
