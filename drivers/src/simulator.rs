//! A simulated host: no hypervisor, but the same life, the same fences, latencies, and failures of
//! every kind on demand. From one seed it behaves the same every time.

mod faults;
mod random;

pub use faults::{Call, Faults};

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use domain::{
    Fence,
    host::Capacity,
    id::{BootId, InstanceId},
    instance::{Body, Ended},
    name::Name,
};
use tokio::sync::broadcast;

use crate::{Driver, DriverError, ErrorKind, Foreign, Inventory, Observation, Order, Usage};
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
}

#[derive(Debug, Default)]
struct World {
    domains: BTreeMap<InstanceId, Domain>,
    fences: BTreeMap<InstanceId, Fence>,
}

/// A simulated host.
pub struct Simulator {
    options: Options,
    boot: BootId,
    world: Mutex<World>,
    faults: Mutex<Faults>,
    random: Mutex<Random>,
    changes: broadcast::Sender<InstanceId>,
}

impl Simulator {
    /// A host that has just booted.
    #[must_use]
    pub fn new(options: Options, boot: BootId) -> Simulator {
        let random = Mutex::new(Random::new(options.seed));
        let (changes, _) = broadcast::channel(1024);
        Simulator {
            options,
            boot,
            world: Mutex::default(),
            faults: Mutex::default(),
            random,
            changes,
        }
    }

    /// The failures that are planned; see [`Faults`].
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    /// Something happens to a guest without anybody asking: a crash, a shutdown from inside.
    pub fn befall(&self, instance: InstanceId, body: Body) {
        if let Some(domain) = lock(&self.world).domains.get_mut(&instance) {
            domain.body = body;
        }
        let _ = self.changes.send(instance);
    }

    /// Somebody with a shell on the host removes a domain.
    pub fn vanish(&self, instance: InstanceId) {
        lock(&self.world).domains.remove(&instance);
        let _ = self.changes.send(instance);
    }

    /// One call: it takes its time, may fail before or after its effect, and checks the fence.
    async fn call<T>(
        &self,
        call: Call,
        instance: InstanceId,
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
        let mut world = lock(&self.world);
        let seen = world.fences.entry(instance).or_default();
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

fn domain(world: &mut World, instance: InstanceId) -> Result<&mut Domain, DriverError> {
    let missing = || DriverError::new(ErrorKind::NotFound, format!("no domain {instance}"));
    world.domains.get_mut(&instance).ok_or_else(missing)
}

fn conflict(body: Body, wish: &str) -> DriverError {
    DriverError::new(ErrorKind::Conflict, format!("cannot {wish} a body that is {body:?}"))
}

#[async_trait]
impl Driver for Simulator {
    async fn inventory(&self) -> Result<Inventory, DriverError> {
        let kind = Name::new("simulator").expect("the literal is a name");
        let capacity = self.options.capacity;
        Ok(Inventory { kind, capacity, boot: self.boot, foreign: 0 })
    }

    async fn observe(&self, instance: InstanceId) -> Result<Observation, DriverError> {
        if let Some(kind) = self.faults().take(Call::Observe) {
            return Err(DriverError::new(kind, "injected into Observe"));
        }
        let world = lock(&self.world);
        let domain = world.domains.get(&instance);
        Ok(Observation {
            instance,
            fence: world.fences.get(&instance).copied().unwrap_or_default(),
            body: domain.map_or(Body::Absent, |domain| domain.body),
            generation: domain.and_then(|domain| domain.generation),
            reboots: domain.map_or(0, |domain| domain.reboots),
            starts: domain.map_or(0, |domain| domain.starts),
        })
    }

    async fn observe_all(&self) -> Result<Vec<Observation>, DriverError> {
        let ids: Vec<InstanceId> = lock(&self.world).domains.keys().copied().collect();
        let mut all = Vec::with_capacity(ids.len());
        for id in ids {
            all.push(self.observe(id).await?);
        }
        Ok(all)
    }

    async fn prepare(&self, order: &Order) -> Result<(), DriverError> {
        self.call(Call::Prepare, order.instance, order.fence, |world| {
            world.domains.entry(order.instance).or_insert_with(|| Domain {
                body: Body::Ready,
                generation: None,
                reboots: 0,
                starts: 0,
                console: Vec::new(),
                name: order.name.clone(),
                memory_mib: u64::from(order.spec.memory_mib),
            });
            Ok(())
        })
        .await
    }

    async fn start(&self, order: &Order) -> Result<(), DriverError> {
        self.call(Call::Start, order.instance, order.fence, |world| {
            let domain = domain(world, order.instance)?;
            match domain.body {
                Body::Running => {}
                Body::Paused => return Err(conflict(domain.body, "start")),
                Body::Absent | Body::Ready | Body::Stopped(_) => {
                    domain.body = Body::Running;
                    domain.generation = Some(order.generation);
                    domain.starts += 1;
                    let line = format!("GUEST-UP id={}\n", domain.name);
                    domain.console.extend_from_slice(line.as_bytes());
                }
            }
            Ok(())
        })
        .await
    }

    async fn shutdown(&self, instance: InstanceId, fence: Fence) -> Result<(), DriverError> {
        self.call(Call::Shutdown, instance, fence, |world| {
            let domain = domain(world, instance)?;
            match domain.body {
                Body::Running => domain.body = Body::Stopped(Ended::Shutdown),
                Body::Paused => return Err(conflict(domain.body, "shut down")),
                Body::Absent | Body::Ready | Body::Stopped(_) => {}
            }
            Ok(())
        })
        .await?;
        let _ = self.changes.send(instance);
        Ok(())
    }

    async fn kill(&self, instance: InstanceId, fence: Fence) -> Result<(), DriverError> {
        self.call(Call::Kill, instance, fence, |world| {
            let domain = domain(world, instance)?;
            if matches!(domain.body, Body::Running | Body::Paused) {
                domain.body = Body::Stopped(Ended::Killed);
            }
            Ok(())
        })
        .await
    }

    async fn reboot(&self, instance: InstanceId, fence: Fence) -> Result<(), DriverError> {
        self.call(Call::Reboot, instance, fence, |world| {
            let domain = domain(world, instance)?;
            if domain.body != Body::Running {
                return Err(conflict(domain.body, "reboot"));
            }
            domain.reboots += 1;
            Ok(())
        })
        .await
    }

    async fn pause(&self, instance: InstanceId, fence: Fence) -> Result<(), DriverError> {
        self.call(Call::Pause, instance, fence, |world| {
            let domain = domain(world, instance)?;
            match domain.body {
                Body::Running | Body::Paused => domain.body = Body::Paused,
                Body::Absent | Body::Ready | Body::Stopped(_) => {
                    return Err(conflict(domain.body, "pause"));
                }
            }
            Ok(())
        })
        .await
    }

    async fn resume(&self, instance: InstanceId, fence: Fence) -> Result<(), DriverError> {
        self.call(Call::Resume, instance, fence, |world| {
            let domain = domain(world, instance)?;
            match domain.body {
                Body::Running | Body::Paused => domain.body = Body::Running,
                Body::Absent | Body::Ready | Body::Stopped(_) => {
                    return Err(conflict(domain.body, "resume"));
                }
            }
            Ok(())
        })
        .await
    }

    async fn release(&self, instance: InstanceId, fence: Fence) -> Result<(), DriverError> {
        self.call(Call::Release, instance, fence, |world| {
            world.domains.remove(&instance);
            Ok(())
        })
        .await
    }

    fn changes(&self) -> broadcast::Receiver<InstanceId> {
        self.changes.subscribe()
    }

    async fn console_log(
        &self,
        instance: InstanceId,
        offset: u64,
        bytes_max: usize,
    ) -> Result<(Vec<u8>, u64), DriverError> {
        let mut world = lock(&self.world);
        let console = &domain(&mut world, instance)?.console;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(console.len());
        let upto = from.saturating_add(bytes_max).min(console.len());
        Ok((console[from..upto].to_vec(), upto as u64))
    }

    async fn console_socket(&self, _: InstanceId) -> Result<PathBuf, DriverError> {
        let message = "a simulated guest has no console to type at";
        Err(DriverError::new(ErrorKind::Permanent, message))
    }

    async fn usage(&self, instance: InstanceId) -> Result<Usage, DriverError> {
        let mut world = lock(&self.world);
        let domain = domain(&mut world, instance)?;
        let memory_mib = if domain.body == Body::Running { domain.memory_mib } else { 0 };
        Ok(Usage { memory_mib, ..Usage::default() })
    }

    async fn foreign(&self) -> Result<Vec<Foreign>, DriverError> {
        Ok(Vec::new())
    }
}
