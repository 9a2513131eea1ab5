//! Real guests move between real hypervisors, and never miss a tick; VMs that stand still or are stopped
//! move too, and execute nowhere meanwhile.

use std::time::Instant;

use client::{Client, v1};
use novacron_lab::{Broken, Cluster, Fencing, begun_us};

use crate::{
    harness::{await_phase, get},
    traveller::{ATTEMPTS, PATIENCE, Traveller, migrate, possible, real_cluster},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_moves_and_never_misses_a_tick() {
    if !possible("migrations of real guests") {
        return;
    }
    let cluster = real_cluster(Fencing::None, Broken::Nothing).await;
    let client = cluster.client().unwrap();
    for (kind, disks) in [("plain", vec![]), ("disks", vec![v1::Disk { size_mib: 64 }])] {
        let mut attempt = 1;
        while !moves_twice(&cluster, &client, &format!("{kind}-{attempt}"), disks.clone()).await {
            attempt += 1;
            assert!(attempt <= ATTEMPTS, "QEMU damaged them all");
        }
    }
}

/// Moves a guest twice; false when QEMU damaged it on its way.
async fn moves_twice(cluster: &Cluster, client: &Client, name: &str, disks: Vec<v1::Disk>) -> bool {
    let mut guest = Traveller::create(client, name, "", disks).await;
    for moves in 1..=2 {
        assert!(guest.goes_on(cluster, 5).await);
        let before = get(client, name).await.unwrap();
        let asked = Instant::now();
        let operation = migrate(client, name, "", 0).await;
        let ended = client.wait(&operation, PATIENCE, |_| ()).await.unwrap();
        assert_eq!(ended.status, "done", "{}", ended.message);
        let took = asked.elapsed();
        let after = get(client, name).await.unwrap();
        assert_ne!(after.host, before.host);
        if !guest.arrived_whole(cluster).await {
            return false;
        }
        assert_eq!(guest.complaints(cluster), [""; 0]);
        assert_eq!(guest.consoles.moves(), Ok(moves));
        let witness = cluster.witness(&guest.id).unwrap();
        let there = witness.last().unwrap();
        assert_eq!(there.host, guest.host(client).await);
        assert_eq!(guest.ran_unasked(cluster, &ended, there.host), None);
        let gap = witness.gap_before_us(&there).unwrap();
        let ticks = cluster.ledger(&guest.id).unwrap().ticks();
        assert!(ticks > 5, "the guest writes nothing to its disk");
        println!(
            "{name}: {} -> {} in {took:.1?}, executed by nobody for {} ms, {ticks} ticks on disk",
            before.host,
            after.host,
            gap / 1_000
        );
    }
    true
}

/// Moves a VM that does not execute; nobody executes it meanwhile.
async fn move_still(cluster: &Cluster, client: &Client, vm: &v1::Vm) -> v1::Vm {
    let asked = Instant::now();
    let operation = migrate(client, &vm.name, "", 0).await;
    let ended = client.wait(&operation, PATIENCE, |_| ()).await.unwrap();
    assert_eq!(ended.status, "done", "{}", ended.message);
    let after = get(client, &vm.name).await.unwrap();
    assert_ne!(after.host, vm.host);
    assert_eq!(after.phase, vm.phase);
    let since = begun_us(&ended, "reserve").unwrap();
    let witness = cluster.witness(&vm.id).unwrap();
    let executed: Vec<_> = (0..3).filter_map(|host| witness.begun_since(host, since)).collect();
    assert!(executed.is_empty(), "it was executed: {executed:?}");
    println!("{}: {} -> {} in {:.1?}", vm.phase, vm.host, after.host, asked.elapsed());
    after
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_execute_moves_too() {
    if !possible("moves of VMs that stand still") {
        return;
    }
    let cluster = real_cluster(Fencing::None, Broken::Nothing).await;
    let client = cluster.client().unwrap();
    let disks = vec![v1::Disk { size_mib: 64 }];
    let mut guest = Traveller::create(&client, "still", "g.count=1", disks).await;
    assert!(guest.goes_on(&cluster, 5).await);

    cluster.novacron(0, &["vm", "pause", "still"]).unwrap();
    await_phase(&client, "still", "paused", PATIENCE).await;
    let vm = get(&client, "still").await.unwrap();
    let vm = move_still(&cluster, &client, &vm).await;
    let operation = migrate(&client, "still", "", 0).await;
    let ended = client.wait(&operation, PATIENCE, |_| ()).await.unwrap();
    assert_eq!(ended.status, "rolled_back");
    assert!(ended.message.contains("resume it first"), "{}", ended.message);
    assert_eq!(get(&client, "still").await.unwrap().host, vm.host);
    cluster.novacron(0, &["vm", "resume", "still"]).unwrap();
    assert!(guest.goes_on(&cluster, 5).await);
    assert_eq!(guest.complaints(&cluster), [""; 0]);

    // It was booted once with its disk before it moved, and finds it there as it left it.
    cluster.novacron(0, &["vm", "stop", "still", "--force"]).unwrap();
    await_phase(&client, "still", "stopped", PATIENCE).await;
    let vm = get(&client, "still").await.unwrap();
    let vm = move_still(&cluster, &client, &vm).await;
    cluster.novacron(0, &["vm", "start", "still"]).unwrap();
    await_phase(&client, "still", "running", PATIENCE).await;
    assert!(guest.goes_on(&cluster, 5).await);
    let said = std::fs::read_to_string(cluster.console_file(&vm.host, &vm.id)).unwrap();
    assert!(said.contains("disk-count 2"), "{said}");
    assert_eq!(guest.complaints(&cluster), [""; 0]);
}
