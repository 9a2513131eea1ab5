//! Many VMs, failing drivers, actors that die, nodes that come and go.

use std::time::{Duration, Instant};

use client::{Client, v1};
use v1::{clusters_client::ClustersClient, vms_client::VmsClient};

use crate::harness::{Lab, create, done, get, spec};

async fn list(client: &Client, filter: &str) -> Vec<v1::Vm> {
    let mut vms = Vec::new();
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
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return vms;
        }
    }
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
    let mut lab = Lab::start(3, 30, 10).await;
    let begun = Instant::now();
    novacron::dev::seed(&lab.cluster.access, count).await.unwrap();
    let accepted = begun.elapsed();
    let size = usize::try_from(count).unwrap();
    let after = await_running(&lab, size, Duration::from_secs(600)).await;
    println!("{count} VMs: accepted in {accepted:.1?}, all running {after:.1?} later");
    assert_same_state(&lab).await;
    let client = lab.client();
    assert_eq!(list(&client, "").await.len(), size);
    assert_eq!(list(&client, "phase=running").await.len(), size);
    assert_eq!(list(&client, "name=seed-00007").await.len(), 1);

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
    assert_eq!(list(&client, "").await.len(), size);
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
    // Votes come one after the other, once a node has kept up for a while.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let cluster = client
            .call(v1::GetClusterRequest::default(), async |channel, request| {
                ClustersClient::new(channel).get_cluster(request).await
            })
            .await
            .unwrap();
        let voters = cluster.nodes.iter().filter(|node| node.role != "learner");
        if voters.count() == 3 && cluster.nodes.iter().all(|node| node.role != "joining") {
            break;
        }
        assert!(Instant::now() < deadline, "not all nodes vote: {:?}", cluster.nodes);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
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
