//! Disks in a pool: real guests move without them and start elsewhere with them, whatever becomes of a host.

use std::time::Instant;

use client::{Client, v1};
use novacron_lab::{Broken, Cluster, Fencing};

use crate::{
    failover::{await_elsewhere, await_hosts},
    harness::{self, await_phase, create, get, spec},
    traveller::{ATTEMPTS, PATIENCE, Traveller, migrate, possible, real_cluster},
};

/// How often the guest was booted with its disk, as it says on the host where it is.
fn boots(cluster: &Cluster, vm: &v1::Vm) -> Option<u32> {
    let said = std::fs::read_to_string(cluster.console_file(&vm.host, &vm.id)).ok()?;
    said.lines()
        .filter_map(|line| line.trim().strip_prefix("disk-count "))
        .next_back()?
        .parse()
        .ok()
}

async fn await_boots(cluster: &Cluster, client: &Client, name: &str, count: u32) {
    let begun = Instant::now();
    loop {
        let seen = boots(cluster, &get(client, name).await.unwrap());
        if seen == Some(count) {
            return;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "it was booted {seen:?} times with its disk, not {count}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

fn disks(cluster: &Cluster, vm: &str) -> Vec<String> {
    let files = std::fs::read_dir(cluster.pool().join("vms").join(vm));
    let names = files.into_iter().flatten().map(|file| file.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_in_a_pool_outlive_their_host() {
    if !possible("disks in a pool") {
        return;
    }
    let mut cluster = real_cluster(Fencing::GuardsAndAgents, Broken::Nothing).await;
    let client = cluster.client().unwrap();
    await_hosts(&client, "guarded and pooled", |host| {
        host.fencing == "guard" && host.pools == ["shared"]
    })
    .await;
    let words = "g.tick=0.1 g.noshell=1 g.witness=1 g.count=1";
    let wanted = v1::VmSpec {
        cmdline: words.to_owned(),
        pool: "shared".to_owned(),
        failover: "restart".to_owned(),
        disks: vec![v1::Disk { size_mib: 64 }],
        ..spec("tiny")
    };
    let mut attempts = 1..=ATTEMPTS;
    let mut guest = loop {
        attempts.next().expect("QEMU damaged them all");
        let mut guest = Traveller::create_from(&client, "db", wanted.clone()).await;
        await_boots(&cluster, &client, "db", 1).await;
        assert_eq!(disks(&cluster, &guest.id), ["disk-0.qcow2"]);

        // It moves, and its disk stays.
        assert!(guest.goes_on(&cluster, 5).await);
        let operation = migrate(&client, "db", "", 0).await;
        let ended = client.wait(&operation, PATIENCE, |_| ()).await.unwrap();
        assert_eq!(ended.status, "done", "{}", ended.message);
        if guest.arrived_whole(&cluster).await {
            break guest;
        }
        cluster.novacron(0, &["vm", "delete", "db"]).unwrap();
    };
    assert_eq!(guest.complaints(&cluster), [""; 0]);
    assert_eq!(guest.consoles.moves(), Ok(1));

    // Stopped, it moves too.
    cluster.novacron(0, &["vm", "stop", "db", "--force"]).unwrap();
    let operation = migrate(&client, "db", "", 0).await;
    let ended = client.wait(&operation, PATIENCE, |_| ()).await.unwrap();
    assert_eq!(ended.status, "done", "{}", ended.message);
    cluster.novacron(0, &["vm", "start", "db"]).unwrap();
    await_boots(&cluster, &client, "db", 2).await;

    // Its host loses power: it starts elsewhere, with the disk.
    let before = get(&client, "db").await.unwrap();
    let victim = guest.host(&client).await;
    let others = cluster.client_without(victim).unwrap();
    let lost = Instant::now();
    cluster.cut_host(victim).unwrap();
    let away = await_elsewhere(&others, "db", &before.host, lost).await;
    await_boots(&cluster, &others, "db", 3).await;
    println!(
        "started elsewhere with its disk {:.1} s after its host lost power",
        away.as_secs_f64()
    );
    assert_eq!(cluster.witness(&guest.id).unwrap().overlaps(), []);

    // The host comes back and removes what is left there, and not the disk.
    cluster.boot_host(victim).unwrap();
    await_hosts(&client, "ready", |host| host.status == "ready").await;
    let begun = Instant::now();
    while cluster.body_directory(victim, &guest.id).exists() {
        assert!(begun.elapsed() < PATIENCE, "what was left was not removed");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(guest.goes_on(&cluster, 5).await);
    assert_eq!(disks(&cluster, &guest.id), ["disk-0.qcow2"]);

    cluster.novacron(0, &["vm", "delete", "db"]).unwrap();
    assert!(!cluster.pool().join("vms").join(&guest.id).exists(), "its disks are left");

    // The disk that an image brings is copied into the pool.
    let disk = harness::guest().disk.to_str().unwrap();
    cluster.novacron(0, &["image", "create", "disk", "--raw", disk]).unwrap();
    let wanted = v1::VmSpec { pool: "shared".to_owned(), root_disk_mib: 100, ..spec("disk") };
    create(&client, "root", wanted).await.unwrap();
    await_phase(&client, "root", "running", PATIENCE).await;
    let root = get(&client, "root").await.unwrap();
    assert_eq!(disks(&cluster, &root.id), ["root.qcow2"]);
    let operation = migrate(&client, "root", "", 0).await;
    let ended = client.wait(&operation, PATIENCE, |_| ()).await.unwrap();
    assert_eq!(ended.status, "done", "{}", ended.message);
}
