//! A cluster that has lost its majority for good goes on with one node; one that is gone begins again
//! from a backup.

use client::{
    Client, Options,
    v1::{self, projects_client::ProjectsClient},
};
use novacron_lab::{Cluster, Hosts, status};
use std::time::{Duration, Instant};

use crate::harness::{await_phase, cluster, create, get, spec};

const PATIENCE: Duration = Duration::from_secs(90);

async fn vm(client: &Client, name: &str) {
    create(client, name, spec("none")).await.unwrap();
    await_phase(client, name, "running", PATIENCE).await;
}

/// What a command says that must fail.
fn refused(cluster: &Cluster, node: usize, arguments: &[&str]) -> String {
    cluster.novacron(node, arguments).unwrap_err().to_string()
}

async fn await_hosts(client: &Client, ready: u32) {
    let begun = Instant::now();
    loop {
        let status = status(client).await.unwrap();
        if status.hosts_ready == ready {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{status:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_goes_on_with_one_node_and_begins_again_from_a_backup() {
    let mut cluster = cluster(Hosts::Simulated).await;
    cluster.await_voters(3).await.unwrap();
    cluster.novacron(0, &["image", "create", "none"]).unwrap();
    let client = cluster.client().unwrap();
    vm(&client, "saved").await;
    cluster.novacron(0, &["cluster", "backup", "--out", "saved.backup"]).unwrap();
    let again = refused(&cluster, 0, &["cluster", "backup", "--out", "saved.backup"]);
    assert!(again.contains("exists already"), "{again}");
    vm(&client, "later").await;
    let before = status(&client).await.unwrap();

    // Two of three are gone. What two decide is on the disks of both, with all that came before.
    let survivor = 2;
    let running = refused(&cluster, survivor, &["node", "recover", "--lost", "n1", "--lost", "n2"]);
    assert!(running.contains("in use"), "{running}");
    cluster.kill(0).unwrap();
    let mutation = client.mutation().await.unwrap();
    let request = v1::CreateProjectRequest { mutation, name: "decided".to_owned() };
    let made = client.call(request, async |channel, request| {
        ProjectsClient::new(channel).create_project(request).await
    });
    made.await.unwrap();
    cluster.kill(1).unwrap();
    // The one that is left says so, as soon as it knows.
    let said = refused(&cluster, survivor, &["cluster", "status"]);
    assert!(said.contains("does not decide"), "{said}");
    cluster.kill(survivor).unwrap();
    for (flags, says) in [
        (&["--lost", "n1"][..], "novacron node recover --lost n1 --lost n2"),
        (&["--lost", "n1", "--lost", "n9"], "n9 is no other member"),
        (&["--lost", "n1", "--lost", "n2"], "Add --yes"),
    ] {
        let said = refused(&cluster, survivor, &[&["node", "recover"], flags].concat());
        assert!(said.contains(says), "{said}");
    }
    let yes = ["node", "recover", "--lost", "n1", "--lost", "n2", "--yes"];
    cluster.novacron(survivor, &yes).unwrap();
    cluster.run(survivor).unwrap();
    cluster.await_ready(survivor).await.unwrap();
    let alone = cluster.patient_client_of(survivor).unwrap();
    let after = status(&alone).await.unwrap();
    assert!(after.revision >> 48 == (before.revision >> 48) + 1, "the epoch is the next one");
    assert_eq!((after.nodes.len(), &*after.leader), (1, "n3"));
    for name in ["saved", "later"] {
        get(&alone, name).await.unwrap();
    }
    vm(&alone, "alone").await;

    // Those that are left behind, a majority of the old group, are told when they come back.
    for node in 0..2 {
        cluster.run(node).unwrap();
    }
    for node in 0..2 {
        assert_eq!(cluster.await_end(node).await.unwrap(), Some(1), "{}", cluster.log(node));
        assert!(cluster.log(node).contains("was removed"), "{}", cluster.log(node));
    }
    // They join anew, with the hosts that they had.
    let hosts = status(&alone).await.unwrap().hosts;
    for node in 0..2 {
        cluster.novacron(node, &["node", "reset", "--yes"]).unwrap();
        let name = format!("n{}", node + 1);
        let access = cluster.novacron(survivor, &["token", "create", "--node", &name]).unwrap();
        let token = access.trim().strip_prefix("novacron join ").unwrap().to_owned();
        cluster.novacron(node, &["join", &token]).unwrap();
        cluster.run(node).unwrap();
        cluster.await_ready(node).await.unwrap();
    }
    cluster.await_voters(3).await.unwrap();
    await_hosts(&alone, 3).await;
    // What a node that has joined since wrote down is what it was told.
    cluster.kill(0).unwrap();
    cluster.run(0).unwrap();
    cluster.await_ready(0).await.unwrap();
    assert_eq!(status(&cluster.patient_client_of(0).unwrap()).await.unwrap().nodes.len(), 3);
    assert_eq!(status(&alone).await.unwrap().hosts, hosts, "a host came back as another");
    for name in ["saved", "later", "alone"] {
        await_phase(&alone, name, "running", PATIENCE).await;
    }

    // Everything is gone but the backup.
    for node in 0..3 {
        cluster.kill(node).unwrap();
        cluster.wipe(node).unwrap();
    }
    let bent = cluster.bend(0, "saved.backup").unwrap();
    let said = refused(&cluster, 0, &["init", "--restore", &bent, "--access-out", "new.json"]);
    assert!(said.contains("damaged"), "{said}");
    let restore = ["init", "--restore", "saved.backup", "--access-out", "new.json"];
    let said = cluster.novacron(0, &restore).unwrap();
    assert!(said.contains("novacron join"), "{said}");
    cluster.run(0).unwrap();
    let access = cluster.access_of(0, "new.json").unwrap();
    let client = Client::new(Options {
        endpoints: access.endpoints.clone(),
        authority: access.authority.clone(),
        server_name: access.server_name.clone(),
        bearer: access.bearer.clone(),
        deadline: PATIENCE,
        traceparent: None,
    })
    .unwrap();
    let restored = status(&client).await.unwrap();
    assert_eq!((&*restored.name, &*restored.id), (&*before.name, &*before.id));
    assert!(restored.revision >> 48 == (before.revision >> 48) + 1, "{restored:?}");
    get(&client, "saved").await.unwrap();
    get(&client, "later").await.unwrap_err();
    // Its machines are new too; the old ones will not come back.
    cluster.write_access(&access).unwrap();
    for host in ["h1", "h2", "h3"] {
        cluster.novacron(0, &["host", "confirm-dead", host]).unwrap();
    }
    cluster.novacron(0, &["vm", "delete", "saved"]).unwrap();
    cluster.novacron(0, &["host", "remove", "h1"]).unwrap();
    vm(&client, "new").await;
}
