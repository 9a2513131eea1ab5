//! Links between hosts are cut; the larger side goes on, the smaller one answers nothing that may
//! be wrong.

use std::time::{Duration, Instant};

use client::{Client, Code};
use novacron_lab::{Cluster, Hosts, bridges_are_possible, status};

use crate::harness::{cluster, create, get, simulated_image, spec};

const PATIENCE: Duration = Duration::from_secs(60);

/// What is done to the leader, and how it is seen to have happened.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It hears nobody and nobody hears it.
    Alone,
    /// It is heard and hears nobody.
    Deaf,
    /// It hears and is not heard.
    Mute,
    /// Its process stands still.
    Paused,
}

impl Fault {
    fn strike(self, cluster: &Cluster, leader: usize) {
        let others = (0..3).filter(|node| *node != leader);
        let links: Vec<(usize, usize)> = match self {
            Fault::Alone => return cluster.isolate(&[leader]).unwrap(),
            Fault::Paused => return cluster.pause(leader).unwrap(),
            Fault::Deaf => others.map(|node| (node, leader)).collect(),
            Fault::Mute => others.map(|node| (leader, node)).collect(),
        };
        cluster.cut(&links).unwrap();
    }

    fn mend(self, cluster: &Cluster, leader: usize) {
        match self {
            Fault::Paused => cluster.resume(leader).unwrap(),
            Fault::Alone | Fault::Deaf | Fault::Mute => cluster.heal().unwrap(),
        }
    }
}

/// Creates a VM that is not started, as soon as these nodes let it.
async fn write(client: &Client, name: &str) -> Duration {
    let begun = Instant::now();
    while let Err(error) = create(client, name, spec("none")).await {
        if error.code() == Some(Code::AlreadyExists) {
            // An attempt that seemed to have failed had not.
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{name}: {error}");
    }
    begun.elapsed()
}

/// Asks for what was acknowledged by the others. It may not answer, but never that there is nothing.
async fn assert_not_stale(cut_off: &Client, name: &str) -> bool {
    let answer = get(cut_off, name).await;
    let code = answer.as_ref().err().and_then(client::Error::code);
    assert_ne!(code, Some(Code::NotFound), "{name}: a stale answer");
    answer.is_ok()
}

/// Waits until all nodes stand at the same place of the same history.
async fn await_same_history(cluster: &Cluster) {
    let begun = Instant::now();
    loop {
        let mut seen = Vec::new();
        for node in 0..3 {
            let answer = status(&cluster.client_of(node).unwrap()).await;
            seen.push(answer.map(|cluster| (cluster.revision, cluster.chain)).ok());
        }
        if seen[0].is_some() && seen.iter().all(|one| *one == seen[0]) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "the nodes do not agree: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_is_replaced_and_serves_nothing_stale() {
    if let Err(why) = bridges_are_possible() {
        assert!(std::env::var_os("REQUIRE_REAL_VMS").is_none(), "{why}");
        println!("SKIPPED partitions: {why}");
        return;
    }
    let cluster = cluster(Hosts::Bridged).await;
    simulated_image(&cluster.client().unwrap()).await;
    cluster.await_voters(3).await.unwrap();
    for fault in [Fault::Alone, Fault::Deaf, Fault::Mute, Fault::Paused] {
        let leader = cluster.leader().await.unwrap().unwrap();
        let others = cluster.client_without(leader).unwrap();
        let cut_off = cluster.client_of(leader).unwrap();
        let dropped = cluster.dropped().unwrap();
        fault.strike(&cluster, leader);
        let name = format!("{fault:?}").to_lowercase();
        let after = write(&others, &name).await;
        println!("{fault:?}: n{} was replaced, and a write took {after:.1?}", leader + 1);
        if !matches!(fault, Fault::Paused) {
            assert!(cluster.dropped().unwrap() > dropped, "{fault:?} did not happen");
            assert_not_stale(&cut_off, &name).await;
        }
        fault.mend(&cluster, leader);
        // Its first answer afterwards knows what it has missed.
        let begun = Instant::now();
        while !assert_not_stale(&cut_off, &name).await {
            assert!(begun.elapsed() < PATIENCE, "{fault:?}: it does not answer any more");
        }
        await_same_history(&cluster).await;
    }
    for node in 0..3 {
        assert!(!cluster.log(node).contains("panicked"), "{}", cluster.log(node));
    }
}
