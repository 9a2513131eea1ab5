//! Locks over the API: one owner at a time, and a resource that refuses who is late.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use client::{Client, Error, v1};
use v1::locks_client::LocksClient;

use crate::harness::Lab;

async fn ask(client: &Client, owner: &str, ttl_ms: u64, wait_ms: u64) -> v1::AcquireLockRequest {
    v1::AcquireLockRequest {
        mutation: client.mutation().await.unwrap(),
        lock: "disk".to_owned(),
        owner: owner.to_owned(),
        ttl_ms,
        wait_ms,
        ..Default::default()
    }
}

async fn acquire(
    client: &Client,
    request: v1::AcquireLockRequest,
) -> Result<v1::AcquireLockResponse, Error> {
    client
        .call(request, async |channel, request| {
            LocksClient::new(channel).acquire_lock(request).await
        })
        .await
}

async fn held(client: &Client, fence: u64, renews: bool) -> Result<v1::Outcome, Error> {
    let request = v1::HeldLockRequest {
        mutation: client.mutation().await?,
        lock: "disk".to_owned(),
        fence,
        ..Default::default()
    };
    client
        .call(request, async |channel, request| {
            let mut locks = LocksClient::new(channel);
            if renews { locks.renew_lock(request).await } else { locks.release_lock(request).await }
        })
        .await
}

/// What a lock protects: it remembers the highest fence, and takes nothing under a lower one.
#[derive(Default)]
struct Resource(AtomicU64);

impl Resource {
    fn write(&self, fence: u64) -> bool {
        self.0.fetch_max(fence, Ordering::SeqCst) <= fence
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_slept_too_long_writes_nothing() {
    let lab = Lab::start(3, 0, 0).await;
    lab.await_voters(3).await;
    let client = lab.client();
    let resource = Resource::default();

    let first = acquire(&client, ask(&client, "a", 5_000, 0).await).await.unwrap();
    assert!(first.held && resource.write(first.fence));
    let refused = acquire(&client, ask(&client, "b", 1_000, 0).await).await.unwrap_err();
    assert_eq!(refused.reason(), "LOCK_HELD", "{refused}");

    // It is waited for; the same request again is the same wish.
    let wish = ask(&client, "b", 60_000, 30_000).await;
    let (one, again) = tokio::join!(acquire(&client, wish.clone()), acquire(&client, wish));
    let second = one.unwrap();
    assert_eq!(second, again.unwrap());
    assert!(second.held && second.fence > first.fence);
    assert!(resource.write(second.fence));

    // The first owner wakes up, still believing that it holds the lock.
    assert!(!resource.write(first.fence), "a late write came through");
    assert_eq!(held(&client, first.fence, true).await.unwrap_err().reason(), "FENCED");
    assert!(resource.write(second.fence));

    // A queue, in the order of asking, over releases.
    held(&client, second.fence, true).await.unwrap();
    let mut last = second.fence;
    let mut waiting = Vec::new();
    for owner in ["c", "d", "e"] {
        let (client, wish) = (client.clone(), ask(&client, owner, 60_000, 60_000).await);
        waiting.push(tokio::spawn(async move { acquire(&client, wish).await }));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    held(&client, last, false).await.unwrap();
    for waiter in waiting {
        let next = waiter.await.unwrap().unwrap();
        assert!(next.held && next.fence > last);
        last = next.fence;
        held(&client, last, false).await.unwrap();
    }
    let list = client.call(v1::ListLocksRequest::default(), async |channel, request| {
        LocksClient::new(channel).list_locks(request).await
    });
    assert_eq!(list.await.unwrap().locks, []);
    lab.cluster.stop().await;
}
