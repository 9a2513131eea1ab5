//! What migration policies say comes about with real guests.

use std::time::{Duration, Instant};

use client::{Client, v1};
use novacron_lab::{Broken, Cluster, Fencing};

use crate::{
    harness::get,
    traveller::{ATTEMPTS, PATIENCE, Traveller, migrate, operation_of, possible, real_cluster},
};

/// A guest that writes over 12 MiB as fast as it can: what it has written in the two seconds that copying
/// them takes must be copied again.
const BUSY: &str = "g.dirty=12 g.rush=1";

fn set(cluster: &Cluster, words: &[&str]) {
    cluster.novacron(0, &[&["migration-policy", "set"], words].concat()).unwrap();
}

/// Waits until a guest has answered what its agent was asked.
async fn tell_agent(cluster: &Cluster, node: usize, vm: &str, command: &str) {
    let (begun, command) = (Instant::now(), format!(r#"{{"execute":"{command}"}}"#));
    while let Err(why) = cluster.virsh(node, &["qemu-agent-command", vm, &command]) {
        assert!(begun.elapsed() < PATIENCE, "its agent does not answer {command}: {why}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_says_what_becomes_of_a_guest_that_is_too_busy() {
    if !possible("policies for real guests") {
        return;
    }
    let cluster = real_cluster(Fencing::None, Broken::Nothing).await;
    let client = cluster.client().unwrap();
    for attempt in 1..=ATTEMPTS {
        if follows_its_policy(&cluster, &client, &format!("busy-{attempt}")).await {
            return;
        }
    }
    panic!("QEMU damaged {ATTEMPTS} guests");
}

/// Has a guest moved by one policy after the other; false when QEMU damaged it on its way.
async fn follows_its_policy(cluster: &Cluster, client: &Client, vm: &str) -> bool {
    let mut guest = Traveller::create(client, vm, BUSY, vec![]).await;
    let slow = ["-l", "pace=slow", "--bandwidth", "6", "--rounds", "3", "--never-slow-down"];
    set(cluster, &[&["patient"], &slow[2..], &["-p", "default"]].concat());
    cluster.novacron(0, &["vm", "update", vm, "--label", "pace=slow"]).unwrap();
    let cases = [
        // One for labels comes before one for a project.
        ("gives-up", "0", "rolled_back", "the guest writes faster than can be copied"),
        ("insists", "20000", "done", ""),
    ];
    for (name, stalled_ms, status, why) in cases {
        let words = ["--stalled-downtime", stalled_ms, "--connections", "2"];
        set(cluster, &[&[name], &slow[..], &words].concat());
        assert!(guest.goes_on(cluster, 5).await);
        let (asked, before) = (Instant::now(), get(client, vm).await.unwrap());
        let operation = migrate(client, vm, "", 0).await;
        let mut allowed_ms = 0;
        let ended = client.wait(&operation, PATIENCE, |seen| {
            allowed_ms = seen.progress.map_or(allowed_ms, |copy| copy.allowed_downtime_ms);
        });
        let ended = ended.await.unwrap();
        assert_eq!((&*ended.status, &*ended.migration_policy), (status, name), "{ended:?}");
        assert!(ended.message.contains(why), "{}", ended.message);
        let after = get(client, vm).await.unwrap();
        assert_eq!(after.host == before.host, status == "rolled_back");
        if !guest.arrived_whole(cluster).await {
            cluster.novacron(0, &["migration-policy", "delete", name]).unwrap();
            return false;
        }
        assert_eq!(guest.complaints(cluster), [""; 0]);
        println!("{name}: {status} after {:.1?}, {allowed_ms} ms allowed", asked.elapsed());
        cluster.novacron(0, &["migration-policy", "delete", name]).unwrap();
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_agent_is_silent_is_taken_back() {
    if !possible("a silent guest") {
        return;
    }
    let cluster = real_cluster(Fencing::None, Broken::Nothing).await;
    let client = cluster.client().unwrap();
    set(&cluster, &["careful", "--when-silent", "return"]);
    for attempt in 1..=ATTEMPTS {
        if is_taken_back(&cluster, &client, &format!("quiet-{attempt}")).await {
            return;
        }
    }
    panic!("none of {ATTEMPTS} guests was taken back");
}

/// Has a guest taken back; false when QEMU damaged it on its way, or it was there too soon.
async fn is_taken_back(cluster: &Cluster, client: &Client, name: &str) -> bool {
    let disks = vec![v1::Disk { size_mib: 16 }];
    let mut guest = Traveller::create(client, name, "g.agent=1", disks).await;
    assert!(guest.goes_on(cluster, 5).await);
    tell_agent(cluster, guest.host(client).await, &guest.id, "guest-ping").await;
    let moved = migrate(client, name, "", 0).await;
    let moved = client.wait(&moved, PATIENCE, |_| ()).await.unwrap();
    assert_eq!(moved.status, "done", "{}", moved.message);

    if !guest.arrived_whole(cluster).await {
        return false;
    }
    // It falls silent while it is copied.
    let home = guest.host(client).await;
    let asked = Instant::now();
    let operation = migrate(client, name, "", 12).await;
    while operation_of(client, &operation).await.is_none_or(|seen| seen.progress.is_none()) {
        assert!(asked.elapsed() < PATIENCE, "it is not copied");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tell_agent(cluster, home, &guest.id, "guest-hush").await;
    let told = operation_of(client, &operation).await;
    let in_time =
        told.is_some_and(|seen| seen.steps.last().is_some_and(|step| step.name == "copy"));
    let ended = client
        .wait(&operation, PATIENCE * 2, |_| guest.consoles.look(cluster, &guest.id))
        .await
        .unwrap();
    // It may have come before it was told, and shown that it lives.
    if ended.status == "done" {
        assert!(!in_time, "it was silent before it came, and was not taken back");
        println!("it was told too late: {}", ended.message);
        return false;
    }
    if ended.status != "rolled_back" {
        let (message, words) = (&ended.message, guest.consoles.last_words());
        assert!(guest.consoles.crash().is_some(), "{}: {message}\n{words}", ended.status);
        return false;
    }
    assert_eq!(guest.host(client).await, home);
    if !guest.arrived_whole(cluster).await {
        return false;
    }
    assert_eq!(guest.complaints(cluster), [""; 0]);
    let steps: Vec<_> = ended.steps.iter().map(|step| &*step.name).collect();
    println!("{} after {:.1?}: {}", ended.message, asked.elapsed(), steps.join(" "));
    true
}
