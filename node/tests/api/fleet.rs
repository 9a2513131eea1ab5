//! Many VMs, failing drivers, actors that die, nodes that come and go.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use client::{Client, v1};
use v1::vms_client::VmsClient;

use crate::harness::{Lab, create, done, get, spec};

/// The VMs that pass, and a revision from which a watch misses nothing after them.
async fn list(client: &Client, filter: &str) -> (Vec<v1::Vm>, u64) {
    let (mut vms, mut revision) = (Vec::new(), u64::MAX);
    let mut page_token = String::new();
    loop {
        let page = v1::Page {
            page_size: 500,
            page_token,
            filter: filter.to_owned(),
            ..Default::default()
        };
        let request = v1::ListVmsRequest { page: Some(page), ..Default::default() };
        let answer = client
            .call(request, async |channel, request| VmsClient::new(channel).list_vms(request).await)
            .await
            .unwrap();
        vms.extend(answer.vms);
        revision = revision.min(answer.revision);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return (vms, revision);
        }
    }
}

#[derive(Debug, Default)]
struct WatchSeen {
    events: usize,
    relisted: usize,
}

/// Watches from before the first VM until each was seen running. Who falls behind further than the
/// history reaches is told so, lists, and goes on from there.
async fn watch_until_running(client: Client, count: usize) -> WatchSeen {
    let (_, since_revision) = list(&client, "").await;
    let mut seen = WatchSeen::default();
    let mut running = HashSet::new();
    let request =
        v1::WatchRequest { since_revision, kinds: vec!["vm".to_owned()], ..Default::default() };
    let mut watch = client.watch(request.clone());
    let mut last = since_revision;
    while running.len() < count {
        match watch.next().await {
            Ok(event) => {
                assert!(event.revision > last, "{} after {last}", event.revision);
                last = event.revision;
                seen.events += 1;
                let vms = event.changes.into_iter().filter_map(|change| change.vm);
                running.extend(vms.filter(|vm| vm.phase == "running").map(|vm| vm.name));
            }
            Err(error) => {
                assert_eq!(error.code(), Some(tonic::Code::OutOfRange), "{error}");
                seen.relisted += 1;
                let (rows, revision) = list(&client, "phase=running").await;
                running.extend(rows.into_iter().map(|vm| vm.name));
                last = revision;
                watch = client.watch(v1::WatchRequest { since_revision: last, ..request.clone() });
            }
        }
    }
    seen
}

/// Resident memory of this process, MiB: of all nodes, hosts and clients of the test.
fn memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// Waits until all VMs run; the answer is how long it took.
async fn await_running(lab: &Lab, count: usize, patience: Duration) -> Duration {
    let begun = Instant::now();
    loop {
        // Read from the state: a list of thousands over and over would be what is measured.
        let view = lab.cluster.daemons.iter().flatten().next().unwrap().store.view();
        let state = &view.state;
        let running = state
            .vms
            .values()
            .filter(|vm| state.phase(vm).as_str() == "running" && vm.operation.is_none())
            .count();
        if running == count {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < patience, "{running} of {count} run after {patience:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// All nodes hold the same history.
async fn assert_same_state(lab: &Lab) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let views: Vec<_> =
            lab.cluster.daemons.iter().flatten().map(|daemon| daemon.store.view()).collect();
        if views.windows(2).all(|pair| pair[0].at == pair[1].at) {
            for pair in views.windows(2) {
                assert_eq!(pair[0].chain(), pair[1].chain());
                assert!(pair[0].state == pair[1].state, "equal chains, different states");
            }
            return;
        }
        assert!(Instant::now() < deadline, "the nodes do not agree");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `FLEET=10000` for the full size.
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_runs_although_drivers_fail() {
    let count: u32 = std::env::var("FLEET").ok().map_or(1_000, |text| text.parse().unwrap());
    // A simulated host has room for more than a hundred.
    let hosts = usize::try_from(count / 100).unwrap().max(30);
    let mut lab = Lab::start(3, hosts, 10).await;
    let size = usize::try_from(count).unwrap();
    let watcher = tokio::spawn(watch_until_running(lab.client(), size));
    let begun = Instant::now();
    novacron::dev::seed(&lab.cluster.access, count).await.unwrap();
    let accepted = begun.elapsed();
    let after = await_running(&lab, size, Duration::from_secs(600)).await;
    println!("{count} VMs: accepted in {accepted:.1?}, all running {after:.1?} later");
    let patience = Duration::from_secs(60);
    let seen = tokio::time::timeout(patience, watcher).await.unwrap().unwrap();
    println!("a watch saw each running: {seen:?}");
    assert_same_state(&lab).await;
    let client = lab.client();
    let begun = Instant::now();
    for (filter, expected) in [("", size), ("phase=running", size), ("name=seed-00007", 1)] {
        assert_eq!(list(&client, filter).await.0.len(), expected, "{filter}");
    }
    println!("listed by page three times in {:.1?}", begun.elapsed());
    println!("memory of three nodes, {hosts} hosts and the clients: {} MiB", memory_mib());

    // The whole cluster restarts; its hosts lose their bodies, as after a power cut, and make them
    // again.
    let begun = Instant::now();
    for number in 0..3 {
        lab.cluster.stop_node(number).await;
    }
    for number in 0..3 {
        lab.cluster.start_node(number).await.unwrap();
    }
    let client = lab.client();
    assert_eq!(list(&client, "").await.0.len(), size);
    println!("restarted and serving after {:.1?}", begun.elapsed());
    await_running(&lab, size, Duration::from_secs(600)).await;
    println!("all running again after {:.1?}", begun.elapsed());
    assert_same_state(&lab).await;
    lab.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_actor_may_die() {
    let lab = Lab::start(3, 3, 0).await;
    lab.image("tiny").await;
    let client = lab.client();
    for round in 0..3 {
        for daemon in lab.cluster.daemons.iter().flatten() {
            for name in daemon.staff().names().await {
                let vm = format!("vm-{round}-{}-{name}", daemon.store.node());
                let outcome = create(&client, &vm, spec()).await.unwrap();
                daemon.staff().kill(&name).await;
                let ended = done(&client, &outcome).await;
                assert_eq!(ended.status, "done", "after {name} was killed: {}", ended.message);
                assert_eq!(get(&client, &vm).await.unwrap().phase, "running");
            }
        }
    }
    assert_same_state(&lab).await;
    lab.cluster.stop().await;
}

/// A leader that leaves hands over, and nobody has to wait for an election.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_and_go() {
    let mut lab = Lab::start(3, 3, 0).await;
    lab.image("tiny").await;
    let client = lab.client();
    lab.await_voters(3).await;
    for number in 0..3 {
        lab.cluster.stop_node(number).await;
        let outcome = create(&client, &format!("without-{number}"), spec()).await.unwrap();
        let host = lab.cluster.daemons.iter().flatten().count();
        assert_eq!(host, 2);
        lab.cluster.start_node(number).await.unwrap();
        let ended = done(&client, &outcome).await;
        assert_eq!(ended.status, "done", "{}", ended.message);
    }
    assert_same_state(&lab).await;
    lab.cluster.stop().await;
}
