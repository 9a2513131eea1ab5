//! Guests on their way between simulated hosts.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use domain::{
    Fence,
    id::VmId,
    instance::{Body, Ended, Landing},
    operation::Progress,
};
use tokio::sync::{broadcast, watch};

use super::{
    Call, Simulator, lock,
    road::Road,
    world::{Domain, World},
};
use crate::{Departure, DriverError, ErrorKind, Migration, Order};

/// What of a host others reach.
pub(super) struct Shared {
    pub(super) world: Mutex<World>,
    pub(super) changes: broadcast::Sender<VmId>,
    pub(super) address: String,
}

/// The simulated hosts of this process, by address.
pub(super) static HOSTS: Mutex<BTreeMap<String, Weak<Shared>>> = Mutex::new(BTreeMap::new());

impl Shared {
    /// A host that others reach at this address, or, when it has none, within this process.
    pub(super) fn new(address: Option<String>, world: World) -> Arc<Shared> {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let within = || format!("simulator:{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let (changes, _) = broadcast::channel(1024);
        let is_within = address.is_none();
        let address = address.unwrap_or_else(within);
        let world = Mutex::new(World { changes: Some(changes.clone()), ..world });
        let shared = Arc::new(Shared { world, changes, address });
        if is_within {
            lock(&HOSTS).insert(shared.address.clone(), Arc::downgrade(&shared));
        }
        shared
    }

    pub(super) fn tell(&self, vm: VmId) {
        let _ = self.changes.send(vm);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        lock(&HOSTS).remove(&self.address);
    }
}

/// A sending under way. It goes on when who asked for it has gone, as a hypervisor's would.
#[derive(Debug)]
pub(super) struct Sending {
    at_rest: bool,
    aborted: AtomicBool,
    progress: Mutex<Progress>,
    ended: watch::Sender<Option<Result<(), DriverError>>>,
}

impl Sending {
    /// Whether a body that is so can be sent.
    fn carries(&self, body: Body) -> bool {
        match body {
            Body::Running | Body::Paused => !self.at_rest,
            Body::Stopped(Ended::Migrated) | Body::Absent | Body::Incoming | Body::Arrived => false,
            Body::Ready | Body::Stopped(_) => self.at_rest,
        }
    }

    async fn end(&self) -> Result<(), DriverError> {
        let mut ended = self.ended.subscribe();
        let result = ended.wait_for(Option::is_some).await.map(|ended| ended.clone());
        result.ok().flatten().unwrap_or_else(|| Err(broken("the sending broke off")))
    }
}

pub(super) fn broken(why: &str) -> DriverError {
    DriverError::new(ErrorKind::Transient, why)
}

/// Copies in rounds, and moves the guest at the end.
async fn carry(from: Arc<Shared>, departing: Departing) {
    let (vm, sending) = (departing.vm, departing.sending.clone());
    let result = travel(&from, departing).await;
    lock(&from.world).sendings.remove(&vm);
    from.tell(vm);
    sending.ended.send_replace(Some(result));
}

async fn travel(from: &Shared, departing: Departing) -> Result<(), DriverError> {
    const ROUNDS: u32 = 4;
    let Departing { vm, address, copy_ms, fence, sending } = departing;
    let mut road = Road::open(&address, vm).await?;
    for round in 1..=ROUNDS {
        tokio::time::sleep(Duration::from_millis(copy_ms / u64::from(ROUNDS))).await;
        let mut progress = lock(&sending.progress);
        progress.rounds = round;
        progress.remaining_bytes = progress.total_bytes / u64::from(round + 1);
    }
    match from.take_leave(vm, &sending) {
        Ok(guest) => {
            let handed_over = road.hand_over(vm, guest).await;
            from.part(vm, fence, handed_over.is_ok());
            handed_over
        }
        Err(error) => {
            road.close(vm);
            Err(error)
        }
    }
}

/// What is sent.
struct Departing {
    vm: VmId,
    address: String,
    copy_ms: u64,
    fence: Fence,
    sending: Arc<Sending>,
}

impl Shared {
    /// A guest stands still, to be handed over; the answer is the guest.
    fn take_leave(&self, vm: VmId, sending: &Sending) -> Result<Domain, DriverError> {
        if sending.aborted.load(Ordering::SeqCst) {
            return Err(broken("the sending was aborted"));
        }
        let mut world = lock(&self.world);
        world.expire();
        let guest = world.domains.get_mut(&vm).filter(|guest| sending.carries(guest.body));
        let Some(guest) = guest else { return Err(broken("the guest is gone")) };
        guest.leaving = true;
        let taken = guest.clone();
        world.keep(vm, None);
        Ok(taken)
    }

    /// It has left, or goes on here: whatever became of it there stands still.
    fn part(&self, vm: VmId, fence: Fence, has_left: bool) {
        let mut world = lock(&self.world);
        world.expire();
        let Some(guest) = world.domains.get_mut(&vm).filter(|guest| guest.leaving) else { return };
        guest.leaving = false;
        if has_left {
            guest.body = Body::Stopped(Ended::Migrated);
        }
        world.keep(vm, Some(fence));
    }
}

#[async_trait]
impl Migration for Simulator {
    async fn receive(&self, order: &Order) -> Result<Landing, DriverError> {
        let order = order.clone();
        self.call(Call::Receive, order.vm, order.fence, move |world| {
            world
                .domains
                .entry(order.vm)
                .or_insert_with(|| Domain { reboots: order.reboots, ..Domain::fresh(&order) });
            Ok(())
        })
        .await?;
        Ok(Landing { address: self.shared.address.clone(), definition: String::new() })
    }

    async fn send(&self, departure: &Departure) -> Result<(), DriverError> {
        let Departure { vm, fence, at_rest, .. } = *departure;
        let address = departure.landing.address.clone();
        let (from, copy_ms) = (self.shared.clone(), self.options.copy_ms);
        let sending = self
            .call(Call::Send, vm, fence, move |world| {
                if let Some(sending) = world.sendings.get(&vm) {
                    return Ok(sending.clone());
                }
                let guest = world.domain(vm)?;
                let (body, total_bytes) = (guest.body, guest.memory_mib << 20);
                let progress =
                    Progress { total_bytes, remaining_bytes: total_bytes, ..Progress::default() };
                let sending = Arc::new(Sending {
                    at_rest,
                    aborted: AtomicBool::new(false),
                    progress: Mutex::new(progress),
                    ended: watch::Sender::new(None),
                });
                if !sending.carries(body) {
                    return Err(super::conflict(body, "send"));
                }
                world.sendings.insert(vm, sending.clone());
                let departing = Departing { vm, address, copy_ms, fence, sending: sending.clone() };
                tokio::spawn(carry(from, departing));
                Ok(sending)
            })
            .await?;
        sending.end().await
    }

    async fn abort(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        let sending = self
            .call(Call::Abort, vm, fence, move |world| Ok(world.sendings.get(&vm).cloned()))
            .await?;
        if let Some(sending) = sending {
            sending.aborted.store(true, Ordering::SeqCst);
            let _ = sending.end().await;
        }
        Ok(())
    }

    async fn progress(&self, vm: VmId) -> Result<Option<Progress>, DriverError> {
        let sending = lock(&self.shared.world).sendings.get(&vm).cloned();
        Ok(sending.map(|sending| *lock(&sending.progress)))
    }

    async fn answers(&self, _: VmId) -> Result<Option<bool>, DriverError> {
        Ok(None)
    }
}
