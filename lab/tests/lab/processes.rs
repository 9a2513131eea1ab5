//! Nodes as processes: killed at any moment, wiped, joined anew.

use std::time::Duration;

use client::{
    Client,
    v1::{self, tokens_client::TokensClient},
};

use novacron_lab::{Hosts, status};

use crate::harness::{await_phase, cluster, create, get, simulated_image, spec};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn any_process_may_be_killed_and_wiped() {
    let mut cluster = cluster(Hosts::Simulated).await;
    let client = cluster.client().unwrap();
    simulated_image(&client).await;
    cluster.await_voters(3).await.unwrap();

    // Each process in turn, the leader among them; the others go on, and it catches up.
    for node in 0..3 {
        cluster.kill(node).unwrap();
        let name = format!("while-{node}-is-away");
        let spec = v1::VmSpec { host: format!("h{}", (node + 1) % 3 + 1), ..spec("none") };
        create(&client, &name, spec).await.unwrap();
        await_phase(&client, &name, "running", PATIENCE).await;
        cluster.run(node).unwrap();
        cluster.await_ready(node).await.unwrap();
        get(&cluster.patient_client_of(node).unwrap(), &name).await.unwrap();
    }

    // A node whose disk is lost is removed and joins as a new one. Its old self would be told.
    let lost = 2;
    let before = status(&client).await.unwrap();
    let old = before.nodes.iter().find(|node| node.name == "n3").unwrap().id;
    cluster.kill(lost).unwrap();
    let vm = v1::VmSpec { host: "h1".to_owned(), ..spec("none") };
    create(&client, "meanwhile", vm).await.unwrap();
    for vm in ["while-0-is-away", "while-1-is-away", "while-2-is-away"] {
        let row = get(&client, vm).await.unwrap();
        if row.host == "h3" {
            // The host is gone for good: its VM goes once a person has seen that it is off.
            cluster.novacron(0, &["vm", "delete", vm, "--async"]).unwrap();
        }
    }
    await_host_lost(&client, &mut cluster).await;
    cluster.novacron(0, &["host", "confirm-dead", "h3"]).unwrap();
    cluster.novacron(0, &["cluster", "remove", "n3"]).unwrap();
    cluster.await_voters(2).await.unwrap();
    cluster.wipe(lost).unwrap();
    let request =
        v1::CreateTokenRequest { mutation: client.mutation().await.unwrap(), ..Default::default() };
    let token = client.call(request, async |channel, request| {
        TokensClient::new(channel).create_token(request).await
    });
    let token = token.await.unwrap().token;
    cluster.novacron(0, &["host", "remove", "h3"]).unwrap();
    cluster.novacron(lost, &["join", &token]).unwrap();
    cluster.run(lost).unwrap();
    cluster.await_ready(lost).await.unwrap();
    cluster.await_voters(3).await.unwrap();
    let after = status(&client).await.unwrap();
    let new = after.nodes.iter().find(|node| node.name == "n3").unwrap().id;
    assert!(new > old, "an id came back: {new}");
    get(&cluster.patient_client_of(lost).unwrap(), "meanwhile").await.unwrap();
    for node in 0..3 {
        assert!(!cluster.log(node).contains("panicked"), "{}", cluster.log(node));
    }
}

async fn await_host_lost(client: &Client, cluster: &mut novacron_lab::Cluster) {
    let begun = std::time::Instant::now();
    loop {
        let hosts = cluster.novacron(0, &["host", "list", "-o", "name", "-l", "status=lost"]);
        if hosts.unwrap().contains("h3") {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "the host is not missed");
        let _ = status(client).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
