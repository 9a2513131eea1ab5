//! A simulated host: no hypervisor, but the same life, the same fences, latencies, and failures of
//! every kind on demand. From one seed it behaves the same every time.
//!
//! It lives in the memory of its process, or keeps its bodies as files: then they outlive the process, as guests
//! outlive a driver.

mod faults;
mod guard;
mod migration;
mod random;
mod record;
mod road;
mod world;

pub use faults::{Call, Faults};
pub use record::{Execution, Places, Record, lose_power, records};

use std::{
    collections::BTreeMap,
    io,
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
};
use tokio::{net::TcpListener, sync::broadcast};

use crate::{
    Driver, DriverError, ErrorKind, Foreign, Inventory, Migration, Observation, Order, Usage,
};
use guard::Held;
use migration::Shared;
use random::Random;
use record::{Found, Records};
use world::{Domain, World};

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
    /// Calls that take seconds, out of a thousand.
    pub slow_per_mille: u64,
    /// The address at which other hosts' drivers reach this one; none for hosts that are all in this process.
    pub address: Option<String>,
    /// The guard that the driver says it asks, when that is to be a process of its own.
    pub guard: Option<PathBuf>,
}

/// How long a call takes that takes seconds, milliseconds.
const SLOW_MS: (u64, u64) = (2_000, 12_000);

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
            slow_per_mille: 0,
            address: None,
            guard: None,
        }
    }
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
        Simulator::with(options, boot, World::default())
    }

    /// A host as its records say.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn open(options: Options, boot: BootId, places: Places) -> io::Result<Simulator> {
        let Found { records, domains, fences, held } = Records::open(places)?;
        let records = Some(records);
        // A guard that is a process of its own lets nobody in before it was told of a lease.
        let held = held.or_else(|| options.guard.as_ref().map(|_| Held::default()));
        let mut world = World { domains, fences, held, records, ..World::default() };
        world.expire();
        Ok(Simulator::with(options, boot, world))
    }

    fn with(options: Options, boot: BootId, world: World) -> Simulator {
        let random = Mutex::new(Random::new(options.seed));
        let booted = Instant::now();
        let shared = Shared::new(options.address.clone(), world);
        Simulator { options, boot, shared, faults: Mutex::default(), random, booted }
    }

    /// Receives guests from the drivers of other hosts, until the process ends.
    ///
    /// # Errors
    /// When no connection can be accepted.
    pub fn receive_guests(
        &self,
        listener: TcpListener,
    ) -> impl Future<Output = io::Result<()>> + Send + use<> {
        road::serve(self.shared.clone(), listener)
    }

    /// Ends the guests whose time is over: what a guard does by itself.
    pub fn look_at_the_time(&self) {
        lock(&self.shared.world).expire();
    }

    /// Whether a guest may begin to execute under this lease.
    ///
    /// # Errors
    /// When the host's guard says no.
    pub fn admits(&self, lease: Fence) -> Result<(), DriverError> {
        let mut world = lock(&self.shared.world);
        world.expire();
        world.admit(lease)
    }

    /// The failures that are planned; see [`Faults`].
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    /// Something happens to a guest without anybody asking: a crash, a shutdown from inside.
    pub fn befall(&self, vm: VmId, body: Body) {
        {
            let mut world = lock(&self.shared.world);
            if let Some(domain) = world.domains.get_mut(&vm) {
                domain.body = body;
            }
            world.keep(vm, None);
        }
        let _ = self.shared.changes.send(vm);
    }

    /// All guests crash at once; the answer is how many there were.
    pub fn crash_all(&self) -> usize {
        let mut world = lock(&self.shared.world);
        world.expire();
        let runs = |domain: &&Domain| domain.executes();
        let doomed = world.domains.iter().filter(|(_, domain)| runs(domain)).map(|(vm, _)| *vm);
        let doomed: Vec<VmId> = doomed.collect();
        for vm in &doomed {
            if let Some(domain) = world.domains.get_mut(vm) {
                domain.body = Body::Stopped(Ended::Crashed);
            }
            world.keep(*vm, None);
        }
        drop(world);
        doomed.iter().for_each(|vm| drop(self.shared.changes.send(*vm)));
        doomed.len()
    }

    /// Somebody with a shell on the host removes a domain.
    pub fn vanish(&self, vm: VmId) {
        {
            let mut world = lock(&self.shared.world);
            world.domains.remove(&vm);
            world.keep(vm, None);
        }
        let _ = self.shared.changes.send(vm);
    }

    /// One call: it takes its time, may fail before or after its effect, and checks the fence. It is carried out
    /// even when whoever made it has gone, as a hypervisor's are.
    async fn call<T: Send + 'static>(
        &self,
        call: Call,
        vm: VmId,
        fence: Fence,
        effect: impl FnOnce(&mut World) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let latency = Duration::from_millis(self.latency_ms());
        let fault = self.faults().take(call).or_else(|| self.chance());
        let shared = self.shared.clone();
        let carried_out = tokio::spawn(async move {
            tokio::time::sleep(latency).await;
            if let Some(kind) = fault
                && kind != ErrorKind::Ambiguous
            {
                return Err(DriverError::new(kind, format!("injected into {call:?}")));
            }
            let mut world = lock(&shared.world);
            // First: a disk may take its time with the fence.
            world.claim(vm, fence)?;
            world.expire();
            let result = effect(&mut world);
            world.keep(vm, Some(fence));
            match fault {
                Some(kind) => Err(DriverError::new(kind, format!("answer of {call:?} lost"))),
                None => result,
            }
        });
        carried_out.await.unwrap_or_else(|error| {
            Err(DriverError::new(ErrorKind::Ambiguous, format!("{call:?} broke off: {error}")))
        })
    }

    fn latency_ms(&self) -> u64 {
        let mut random = lock(&self.random);
        let Options { latency_ms_min, latency_ms_max, slow_per_mille, .. } = self.options;
        let is_slow = slow_per_mille > 0 && random.between(0, 999) < slow_per_mille;
        let (least, most) = if is_slow { SLOW_MS } else { (latency_ms_min, latency_ms_max) };
        random.between(least, most)
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

fn conflict(body: Body, wish: &str) -> DriverError {
    DriverError::new(ErrorKind::Conflict, format!("cannot {wish} a body that is {body:?}"))
}

#[async_trait]
impl Driver for Simulator {
    async fn inventory(&self) -> Result<Inventory, DriverError> {
        let kind = Name::new("simulator").expect("the literal is a name");
        let capacity = self.options.capacity;
        Ok(Inventory {
            kind,
            capacity,
            boot: self.boot,
            foreign: 0,
            guard: self.options.guard.clone(),
        })
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
        let order = order.clone();
        self.call(Call::Prepare, order.vm, order.fence, move |world| {
            let place = world.domains.entry(order.vm).or_insert_with(|| Domain::fresh(&order));
            // The disks of a guest that was sent away are as good as new ones.
            if place.body == Body::Stopped(Ended::Migrated) {
                place.body = Body::Ready;
            }
            Ok(())
        })
        .await
    }

    async fn start(&self, order: &Order) -> Result<(), DriverError> {
        let order = order.clone();
        self.call(Call::Start, order.vm, order.fence, move |world| {
            world.admit(order.lease)?;
            let domain = world.domain(order.vm)?;
            domain.is_here("start")?;
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
        self.call(Call::Shutdown, vm, fence, move |world| {
            let domain = world.domain(vm)?;
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
        self.call(Call::Kill, vm, fence, move |world| {
            let domain = world.domain(vm)?;
            if matches!(domain.body, Body::Running | Body::Paused | Body::Arrived) {
                domain.body = Body::Stopped(Ended::Killed);
            }
            Ok(())
        })
        .await
    }

    async fn reboot(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        self.call(Call::Reboot, vm, fence, move |world| {
            let domain = world.domain(vm)?;
            if domain.body != Body::Running {
                return Err(conflict(domain.body, "reboot"));
            }
            domain.reboots += 1;
            Ok(())
        })
        .await
    }

    async fn pause(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        self.call(Call::Pause, vm, fence, move |world| {
            let domain = world.domain(vm)?;
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
        self.call(Call::Resume, vm, fence, move |world| {
            world.admit(lease)?;
            let domain = world.domain(vm)?;
            domain.is_here("resume")?;
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
        self.call(Call::Release, vm, fence, move |world| {
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
        let console = &world.domain(vm)?.console;
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
        let domain = world.domain(vm)?;
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
