//! Locks around something that checks fences: taken, renewed, given back, and also forgotten and used for too
//! long.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use client::{
    Client, Error,
    v1::{self, locks_client::LocksClient},
};
use serde_json::json;
use tokio::task::JoinSet;

use super::{Load, think};
use crate::history::Process;

pub(crate) const MODEL: &str = "lock";

const LOCKS: usize = 2;
const TTL_MS: std::ops::Range<u64> = 2_000..4_000;
const WAIT_MS: u64 = 1_000;

/// What the locks protect: it keeps the highest fence that it has seen, and refuses a lower one.
#[derive(Default)]
struct Resource(Mutex<BTreeMap<String, u64>>);

impl Resource {
    fn write(&self, lock: &str, fence: u64) -> Result<(), String> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let highest = seen.entry(lock.to_owned()).or_default();
        if fence < *highest {
            return Err(format!("{highest} was here"));
        }
        *highest = fence;
        Ok(())
    }
}

/// So many clients take locks until the load is over.
pub(crate) fn take(load: &Load, clients: u64, seed: u64) -> JoinSet<()> {
    let resource = Arc::new(Resource::default());
    let mut all = JoinSet::new();
    for number in 0..clients {
        let (load, resource) = (load.clone(), resource.clone());
        let mut random = fastrand::Rng::with_seed(seed ^ (number << 32));
        all.spawn(async move {
            let mut process = load.history.process(MODEL);
            let owner = format!("holder-{number}");
            while !load.is_over() {
                let lock = format!("lock-{}", random.usize(..LOCKS));
                hold(&load, &mut process, &resource, &lock, &owner, &mut random).await;
                think(&mut random, 50..300).await;
            }
        });
    }
    all
}

/// Takes a lock, if it can be had, and uses what it protects.
async fn hold(
    load: &Load,
    process: &mut Process,
    resource: &Resource,
    lock: &str,
    owner: &str,
    random: &mut fastrand::Rng,
) {
    let (client, ttl_ms) = (load.to_change(random), random.u64(TTL_MS));
    let wait_ms = if random.bool() { WAIT_MS } else { 0 };
    let call = process.invoke("acquire", lock, json!({ "ttl_ms": ttl_ms, "wait_ms": wait_ms }));
    let granted = acquire(client, lock, owner, ttl_ms, wait_ms).await;
    // Who still waits for it may have it later, and does not hear of it.
    let fence = match &granted {
        Ok(granted) if !granted.held => return drop(call),
        Ok(granted) => granted.fence,
        Err(_) => 0,
    };
    call.hear(&granted, |granted| json!({ "fence": granted.fence }));
    if granted.is_err() {
        return;
    }
    for _ in 0..random.u8(1..4) {
        let call = process.invoke("write", lock, json!({ "fence": fence }));
        match resource.write(lock, fence) {
            Ok(()) => call.ok(json!({})),
            Err(why) => return call.fail(why),
        }
        if random.u8(..100) < 30 {
            let asked = json!({ "fence": fence, "ttl_ms": ttl_ms });
            let call = process.invoke("renew", lock, asked);
            let renewed = renew(load.to_change(random), lock, fence).await;
            call.hear(&renewed, |_| json!({}));
        }
        // Some hold it for longer than they may.
        think(random, 20..ttl_ms / 2).await;
    }
    if random.u8(..100) < 80 {
        let call = process.invoke("release", lock, json!({ "fence": fence }));
        let released = release(load.to_change(random), lock, fence).await;
        call.hear(&released, |_| json!({}));
    }
}

async fn acquire(
    client: &Client,
    lock: &str,
    owner: &str,
    ttl_ms: u64,
    wait_ms: u64,
) -> Result<v1::AcquireLockResponse, Error> {
    let request = v1::AcquireLockRequest {
        mutation: client.mutation().await?,
        project: String::new(),
        lock: lock.to_owned(),
        owner: owner.to_owned(),
        ttl_ms,
        wait_ms,
    };
    let asked = client.call(request, async |channel, request| {
        LocksClient::new(channel).acquire_lock(request).await
    });
    asked.await
}

async fn renew(client: &Client, lock: &str, fence: u64) -> Result<v1::Outcome, Error> {
    let request = held(client, lock, fence).await?;
    let asked = client.call(request, async |channel, request| {
        LocksClient::new(channel).renew_lock(request).await
    });
    asked.await
}

async fn release(client: &Client, lock: &str, fence: u64) -> Result<v1::Outcome, Error> {
    let request = held(client, lock, fence).await?;
    let asked = client.call(request, async |channel, request| {
        LocksClient::new(channel).release_lock(request).await
    });
    asked.await
}

async fn held(client: &Client, lock: &str, fence: u64) -> Result<v1::HeldLockRequest, Error> {
    let (mutation, lock) = (client.mutation().await?, lock.to_owned());
    Ok(v1::HeldLockRequest { mutation, project: String::new(), lock, fence })
}
