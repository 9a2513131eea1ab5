//! Changes that come over one stream: each is what the call of its name is, and none is lost or made twice when the
//! stream breaks.

use std::collections::BTreeSet;

use client::{Changes, Client, Error, v1};
use futures_util::future::join_all;
use v1::{make_changes_request::Change, make_changes_response::Answer};

use crate::harness::{Lab, done, get, spec};

async fn create(client: &Client, name: &str, vcpus: u32) -> Change {
    Change::CreateVm(v1::CreateVmRequest {
        mutation: client.mutation().await.unwrap(),
        name: name.to_owned(),
        spec: Some(v1::VmSpec { vcpus, ..spec() }),
        stopped: true,
        ..Default::default()
    })
}

async fn acquire(client: &Client, lock: &str) -> Change {
    Change::AcquireLock(v1::AcquireLockRequest {
        mutation: client.mutation().await.unwrap(),
        lock: lock.to_owned(),
        owner: "somebody".to_owned(),
        ttl_ms: 60_000,
        ..Default::default()
    })
}

async fn release(client: &Client, lock: &str, fence: u64) -> Change {
    Change::ReleaseLock(v1::HeldLockRequest {
        mutation: client.mutation().await.unwrap(),
        lock: lock.to_owned(),
        fence,
        ..Default::default()
    })
}

async fn outcome(changes: &Changes, change: Change) -> v1::Outcome {
    let answer = changes.make(change).await.unwrap();
    let Answer::Outcome(outcome) = answer else { panic!("{answer:?} is no outcome") };
    outcome
}

async fn lock(changes: &Changes, change: Change) -> v1::AcquireLockResponse {
    let answer = changes.make(change).await.unwrap();
    let Answer::Lock(granted) = answer else { panic!("{answer:?} is no lock") };
    granted
}

async fn fence(changes: &Changes, change: Change) -> u64 {
    lock(changes, change).await.fence
}

/// Its reason, and its fields.
fn refused(answer: Result<Answer, Error>) -> (String, Vec<String>) {
    let error = answer.unwrap_err();
    (error.reason(), error.violations().into_iter().map(|(field, _)| field).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_over_a_stream_is_what_its_call_is() {
    let lab = Lab::start(1, 1, 0).await;
    lab.image("tiny").await;
    let client = lab.client();
    let changes = client.changes();

    let asked = create(&client, "web", 1).await;
    let made = outcome(&changes, asked.clone()).await;
    assert_eq!(outcome(&changes, asked.clone()).await, made, "the same request, the same answer");
    done(&client, &made).await;
    assert_eq!(get(&client, "web").await.unwrap().id, made.object);
    let mut other = asked;
    if let Change::CreateVm(other) = &mut other {
        other.name = "other".to_owned();
    }
    assert_eq!(refused(changes.make(other).await).0, "REQUEST_ID_REUSED");
    let taken = create(&client, "web", 1).await;
    assert_eq!(refused(changes.make(taken).await).0, "NAME_TAKEN");
    let bent = create(&client, "bent", 0).await;
    let (reason, fields) = refused(changes.make(bent).await);
    assert_eq!((reason.as_str(), &fields[..]), ("INVALID", &["spec.vcpus".to_owned()][..]));

    let held = fence(&changes, acquire(&client, "one").await).await;
    let late = release(&client, "one", held - 1).await;
    assert_eq!(refused(changes.make(late).await).0, "FENCED");
    // Who waits for it is told so at once, and asks again.
    let mut waits = acquire(&client, "one").await;
    if let Change::AcquireLock(asked) = &mut waits {
        asked.wait_ms = 60_000;
    }
    assert!(!lock(&changes, waits.clone()).await.held);
    outcome(&changes, release(&client, "one", held).await).await;
    let granted = lock(&changes, waits).await;
    assert!(granted.held && granted.fence > held, "{granted:?}");

    // Who may not is told so, and not that nobody answered.
    let (viewer, _) = lab.client_as("viewer", "looker").await;
    let asked = create(&client, "next", 1).await;
    assert_eq!(refused(viewer.changes().make(asked).await).0, "PERMISSION_DENIED");
    lab.cluster.stop().await;
}

/// Two hundred at a time, and the node that has them ends: each is made, and made once.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_loses_nothing_and_repeats_nothing() {
    const LOCKS: usize = 200;
    let mut lab = Lab::start(3, 0, 0).await;
    lab.await_voters(3).await;
    let client = lab.client();
    let changes = client.changes();
    let taken: Vec<_> = (0..LOCKS)
        .map(|number| {
            let (client, changes) = (client.clone(), changes.clone());
            tokio::spawn(async move {
                let mut fences = Vec::new();
                for _ in 0..5 {
                    let lock = format!("lock-{number}");
                    let fence = fence(&changes, acquire(&client, &lock).await).await;
                    outcome(&changes, release(&client, &lock, fence).await).await;
                    fences.push(fence);
                }
                fences
            })
        })
        .collect();
    // The client asks the first node first.
    lab.cluster.stop_node(0).await;
    let mut all = BTreeSet::new();
    for fences in join_all(taken).await {
        let fences = fences.unwrap();
        assert!(fences.is_sorted(), "{fences:?}");
        all.extend(fences);
    }
    assert_eq!(all.len(), LOCKS * 5, "each was granted once");
    lab.cluster.stop().await;
}
