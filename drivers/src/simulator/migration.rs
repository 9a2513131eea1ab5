//! Guests on their way between simulated hosts of one process.

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

use super::{Call, Domain, Simulator, World, domain, lock};
use crate::{Departure, DriverError, ErrorKind, Migration, Order};

/// What of a host others reach.
pub(super) struct Shared {
    pub(super) world: Mutex<World>,
    pub(super) changes: broadcast::Sender<VmId>,
    pub(super) address: String,
}

/// The simulated hosts of this process, by address.
static HOSTS: Mutex<BTreeMap<String, Weak<Shared>>> = Mutex::new(BTreeMap::new());

impl Shared {
    pub(super) fn new() -> Arc<Shared> {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let address = format!("simulator:{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let (changes, _) = broadcast::channel(1024);
        let shared = Arc::new(Shared { world: Mutex::default(), changes, address });
        lock(&HOSTS).insert(shared.address.clone(), Arc::downgrade(&shared));
        shared
    }

    fn tell(&self, vm: VmId) {
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

fn broken(why: &str) -> DriverError {
    DriverError::new(ErrorKind::Transient, why)
}

/// Copies in rounds, and moves the guest at the end.
async fn carry(from: Arc<Shared>, to: Arc<Shared>, vm: VmId, copy_ms: u64, sending: Arc<Sending>) {
    const ROUNDS: u32 = 4;
    if let Some(place) =
        lock(&to.world).domains.get_mut(&vm).filter(|place| place.body == Body::Ready)
    {
        place.body = Body::Incoming;
    }
    for round in 1..=ROUNDS {
        tokio::time::sleep(Duration::from_millis(copy_ms / u64::from(ROUNDS))).await;
        let mut progress = lock(&sending.progress);
        progress.rounds = round;
        progress.remaining_bytes = progress.total_bytes / u64::from(round + 1);
    }
    let result = arrive(&from, &to, vm, &sending);
    lock(&from.world).sendings.remove(&vm);
    from.tell(vm);
    to.tell(vm);
    sending.ended.send_replace(Some(result));
}

fn arrive(from: &Shared, to: &Shared, vm: VmId, sending: &Sending) -> Result<(), DriverError> {
    let guest = {
        let mut here = lock(&from.world);
        here.expire();
        here.domains.get(&vm).filter(|guest| sending.carries(guest.body)).cloned()
    };
    let mut there = lock(&to.world);
    there.expire();
    let place = there.domains.get_mut(&vm).filter(|place| place.body == Body::Incoming);
    let (Some(guest), Some(place)) = (guest, place) else {
        return Err(broken("the guest or its place is gone"));
    };
    if sending.aborted.load(Ordering::SeqCst) {
        place.body = Body::Ready;
        return Err(broken("the sending was aborted"));
    }
    *place = Domain { body: Body::Arrived, ..guest };
    drop(there);
    if let Some(left) = lock(&from.world).domains.get_mut(&vm) {
        left.body = Body::Stopped(Ended::Migrated);
    }
    Ok(())
}

#[async_trait]
impl Migration for Simulator {
    async fn receive(&self, order: &Order) -> Result<Landing, DriverError> {
        self.call(Call::Receive, order.vm, order.fence, |world| {
            world
                .domains
                .entry(order.vm)
                .or_insert_with(|| Domain { reboots: order.reboots, ..Domain::fresh(order) });
            Ok(())
        })
        .await?;
        Ok(Landing { address: self.shared.address.clone(), definition: String::new() })
    }

    async fn send(&self, departure: &Departure) -> Result<(), DriverError> {
        let vm = departure.vm;
        let to = lock(&HOSTS).get(&departure.landing.address).and_then(Weak::upgrade);
        let to = to.ok_or_else(|| broken("the target cannot be reached"))?;
        let from = self.shared.clone();
        let copy_ms = self.options.copy_ms;
        let sending = self
            .call(Call::Send, vm, departure.fence, |world| {
                if let Some(sending) = world.sendings.get(&vm) {
                    return Ok(sending.clone());
                }
                let guest = domain(world, vm)?;
                let (body, total_bytes) = (guest.body, guest.memory_mib << 20);
                let progress =
                    Progress { total_bytes, remaining_bytes: total_bytes, ..Progress::default() };
                let sending = Arc::new(Sending {
                    at_rest: departure.at_rest,
                    aborted: AtomicBool::new(false),
                    progress: Mutex::new(progress),
                    ended: watch::Sender::new(None),
                });
                if !sending.carries(body) {
                    return Err(super::conflict(body, "send"));
                }
                world.sendings.insert(vm, sending.clone());
                tokio::spawn(carry(from, to, vm, copy_ms, sending.clone()));
                Ok(sending)
            })
            .await?;
        sending.end().await
    }

    async fn abort(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        let sending =
            self.call(Call::Abort, vm, fence, |world| Ok(world.sendings.get(&vm).cloned())).await?;
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
