//! A cluster grows, shrinks, restarts, and catches up.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use domain::{envelope::Command, lock::LockCommand, principal::Principal, rejected::Reason};
use novacron_raft_store::{Consistency, ProposeError, ReadError, Timing};

use crate::harness::{Cluster, PATIENCE, create, id, name};

#[tokio::test(flavor = "multi_thread")]
async fn every_node_proposes_and_reads() {
    let cluster = Cluster::of(3, Timing::relaxed()).await;
    let stores: Vec<_> = cluster.running.values().cloned().collect();
    for (n, store) in stores.iter().enumerate() {
        let text = format!("through-{n}");
        let outcome = create(store, &text, n as u128).await.unwrap();
        for reader in &stores {
            let view = reader.read(Consistency::Linearizable).await.unwrap();
            assert!(view.state.projects.contains_key(&name(&text)));
            let view = reader.read(Consistency::AtLeast(outcome.revision)).await.unwrap();
            assert!(view.state.projects.contains_key(&name(&text)));
            // Where the machine stands still it rightly refuses: it cannot show that it is young.
            let begun = Instant::now();
            while let Err(error) = reader.read(Consistency::MaxAge(Duration::from_secs(2))).await {
                assert!(begun.elapsed() < PATIENCE, "{error}");
            }
        }
    }
    // A refusal comes back as what it is, also from afar.
    for store in &stores {
        match create(store, "through-0", 77).await {
            Err(ProposeError::Rejected(rejected)) => {
                assert_eq!(rejected.reason, Reason::NameTaken);
            }
            other => panic!("{other:?}"),
        }
    }
    let foreign = domain::Revision::new(9, 1);
    let refused = stores[0].read(Consistency::AtLeast(foreign)).await;
    assert!(matches!(refused, Err(ReadError::OtherEpoch(_))));
    cluster.await_agreement().await;
}

/// Raft tells where it stands after every entry, and who looks then must not be in its way.
#[tokio::test(flavor = "multi_thread")]
async fn its_status_can_be_asked_at_any_time() {
    let cluster = Cluster::of(1, Timing::relaxed()).await;
    let store = cluster.running[&1].clone();
    let (asked, stop) = (store.clone(), std::sync::Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let looks = std::thread::spawn(move || {
        let mut looks = 0;
        while !stopped.load(Ordering::Relaxed) {
            looks += u64::from(asked.status().leads);
        }
        looks
    });
    let proposals = async {
        for n in 0..500 {
            create(&store, &format!("p{n}"), n).await.unwrap();
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(60), proposals).await;
    stop.store(true, Ordering::Relaxed);
    done.expect("the node stands still");
    assert!(looks.join().unwrap() > 0);
}

/// The same request, sent many times to all nodes at once: one effect, equal answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_has_one_effect() {
    let cluster = Cluster::of(3, Timing::relaxed()).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..10 {
        for store in cluster.running.values() {
            let store = store.clone();
            calls.spawn(async move { create(&store, "once", 5).await.unwrap() });
        }
    }
    let answers = calls.join_all().await;
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    cluster.await_agreement().await;
    assert_eq!(cluster.leader().await.view().state.projects.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_has_everything() {
    let mut cluster = Cluster::of(3, Timing::relaxed()).await;
    for n in 0..50 {
        create(&cluster.leader().await, &format!("p{n}"), n).await.unwrap();
    }
    let nodes: Vec<_> = cluster.running.keys().copied().collect();
    for node in &nodes {
        cluster.stop(*node).await;
        create(&cluster.leader().await, &format!("while-{node}-was-away"), 100 + u128::from(*node))
            .await
            .unwrap();
        cluster.open(*node).await;
        cluster.await_agreement().await;
    }
    // All at once: nothing but the disks remembers.
    for node in &nodes {
        cluster.stop(*node).await;
    }
    for node in &nodes {
        cluster.open(*node).await;
    }
    let view = cluster.leader().await.read(Consistency::Linearizable).await.unwrap();
    assert_eq!(view.state.projects.len(), 1 + 50 + 3);
    cluster.await_agreement().await;
}

/// A node that joins after the log was purged gets the state as a snapshot, and so does one that
/// was away for too long.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_node_gets_a_snapshot() {
    let timing = Timing { snapshot_entries: 100, kept_entries: 20, ..Timing::relaxed() };
    let mut cluster = Cluster::of(3, timing).await;
    let away = *cluster.running.keys().last().unwrap();
    cluster.stop(away).await;
    for n in 0..400 {
        create(&cluster.leader().await, &format!("p{n}"), n).await.unwrap();
    }
    // What was purged before they come cannot reach them as entries, whoever leads then.
    let purged = await_purged(&cluster, 100).await;
    let joined = cluster.join().await;
    cluster.open(away).await;
    cluster.await_agreement().await;
    for node in [joined, away] {
        let snapshot = cluster.running[&node].status().snapshot_index;
        assert!(snapshot >= purged, "node {node}: {snapshot:?}, purged {purged:?}");
    }
    // What was installed survives a restart.
    cluster.stop(joined).await;
    cluster.open(joined).await;
    cluster.await_agreement().await;
}

/// What is refused lies in the log too, and may be large: there is a snapshot long before there are as many entries as
/// make one.
#[tokio::test(flavor = "multi_thread")]
async fn large_entries_do_not_fill_the_memory() {
    let timing = Timing { log_bytes: 2 << 20, ..Timing::relaxed() };
    let cluster = Cluster::of(3, timing).await;
    let leader = cluster.leader().await;
    for n in 0..40 {
        let acquire = LockCommand::Acquire {
            lock: (name("default"), name("large")),
            ticket: id(n),
            owner: "x".repeat(100_000),
            ttl_ms: 1_000,
            wait_ms: 0,
        };
        let command = Command::Lock(acquire);
        let refused = leader.propose(Principal::Credential(id(1)), None, command).await;
        assert!(matches!(refused, Err(ProposeError::Rejected(_))), "{refused:?}");
    }
    await_purged(&cluster, 20).await;
    cluster.await_agreement().await;
}

/// Waits until every node that runs has purged its log beyond this entry, and says up to which.
/// Snapshots are made beside all else, and take their time.
async fn await_purged(cluster: &Cluster, beyond: u64) -> Option<u64> {
    let (begun, mut n) = (Instant::now(), 1_000);
    loop {
        let purged = cluster.running.values().map(|store| store.status().purged_index).min();
        let purged = purged.flatten();
        if purged > Some(beyond) {
            return purged;
        }
        assert!(begun.elapsed() < PATIENCE, "the log was not purged: {purged:?}");
        // A snapshot that is due is begun when something happens.
        create(&cluster.leader().await, &format!("p{n}"), n).await.unwrap();
        n += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_to_five_to_three_under_load() {
    let mut cluster = Cluster::of(3, Timing::relaxed()).await;
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let store = cluster.leader().await;
    let load = tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for n in 0_u128.. {
            if *stopped.borrow_and_update() {
                break;
            }
            let text = format!("load-{n}");
            create(&store, &text, 1_000 + n).await.unwrap();
            acknowledged.push(text);
        }
        acknowledged
    });
    let mut joined = Vec::new();
    for _ in 0..2 {
        let node = cluster.join().await;
        let leader = cluster.leader().await;
        let mut voters = leader.status().voters;
        voters.insert(node);
        leader.set_voters(voters).await.unwrap();
        joined.push(node);
    }
    assert_eq!(cluster.leader().await.status().voters.len(), 5);
    for node in joined {
        let leader = cluster.leader().await;
        let mut voters = leader.status().voters;
        voters.remove(&node);
        leader.set_voters(voters).await.unwrap();
        leader.remove_peer(node).await.unwrap();
        cluster.stop(node).await;
    }
    assert_eq!(cluster.leader().await.status().voters.len(), 3);
    stop.send_replace(true);
    let acknowledged = load.await.unwrap();
    assert!(acknowledged.len() > 20, "{} writes under load", acknowledged.len());
    cluster.await_agreement().await;
    let view = cluster.leader().await.view();
    for text in acknowledged {
        assert!(view.state.projects.contains_key(&name(&text)), "{text} is lost");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over() {
    let cluster = Cluster::of(3, Timing::relaxed()).await;
    let leader = cluster.leader().await;
    let to = *cluster.running.keys().find(|node| **node != leader.node()).unwrap();
    leader.transfer_leader(to).await.unwrap();
    assert_eq!(cluster.leader().await.node(), to);
    // Lease time goes on from where it stood.
    cluster.tick().await;
    let before = cluster.leader().await.view().state.now_ms;
    tokio::time::sleep(Duration::from_millis(50)).await;
    cluster.tick().await;
    let after = cluster.leader().await.view().state.now_ms;
    assert!((before + 50..before + 5_000).contains(&after), "{before} then {after}");
}
