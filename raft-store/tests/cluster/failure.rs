//! What goes wrong: lost leaders, removed nodes, strangers, damaged disks.

use domain::{envelope::Command, node::NodeCommand, principal::Principal};
use novacron_raft_store::{Consistency, StoreError, Timing};

use crate::harness::{Cluster, PATIENCE, create, id, name};

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_leader_is_replaced() {
    let mut cluster = Cluster::of(3, Timing::relaxed()).await;
    create(&cluster.leader().await, "before", 1).await.unwrap();
    let leader = cluster.leader().await.node();
    cluster.stop(leader).await;
    // The survivors are asked at once: they retry until there is a new leader.
    let survivor = cluster.running.values().next().unwrap().clone();
    create(&survivor, "after", 2).await.unwrap();
    cluster.open(leader).await;
    cluster.await_agreement().await;
    let view = cluster.running[&leader].view();
    assert!(view.state.projects.contains_key(&name("after")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_told() {
    let mut cluster = Cluster::of(3, Timing::relaxed()).await;
    let leader = cluster.leader().await;
    let node = *cluster.running.keys().find(|node| **node != leader.node()).unwrap();
    cluster.stop(node).await;
    let remove = Command::Node(NodeCommand::Remove { node });
    leader.propose(Principal::Credential(id(1)), None, remove).await.unwrap();
    let mut voters = leader.status().voters;
    voters.remove(&node);
    leader.set_voters(voters).await.unwrap();
    leader.remove_peer(node).await.unwrap();
    // It knows nothing of this, asks for votes, and is told.
    let store = cluster.open(node).await;
    let mut removed = store.removed();
    tokio::time::timeout(PATIENCE, removed.wait_for(|removed| *removed)).await.unwrap().unwrap();
    let refused = create(&store, "by-a-ghost", 9).await;
    assert!(refused.is_err());
    cluster.stop(node).await;
    cluster.await_agreement().await;
}

/// The same directory cannot be used twice, and a log that vanished is not taken for a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_not_trusted_blindly() {
    let mut cluster = Cluster::found(Timing::relaxed()).await;
    create(&cluster.leader().await, "something", 1).await.unwrap();
    let error = cluster.try_open(1).await.err().unwrap().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    cluster.stop(1).await;
    let directory = cluster.nodes[&1].directory.clone();
    for file in std::fs::read_dir(directory.join("log")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    match cluster.try_open(1).await {
        Err(StoreError::Damage(error)) => {
            let error = error.to_string();
            assert!(error.contains("the log is gone") && error.contains("node reset"), "{error}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it started empty"),
    }
}

/// A damaged copy in sled, and then a damaged newest snapshot, cost nothing: the rest is enough.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_made_again_is() {
    let timing = Timing { snapshot_entries: 50, kept_entries: 10, ..Timing::relaxed() };
    let mut cluster = Cluster::found(timing).await;
    for n in 0..200 {
        create(&cluster.leader().await, &format!("p{n}"), n).await.unwrap();
    }
    let directory = cluster.nodes[&1].directory.clone();
    cluster.stop(1).await;
    std::fs::write(directory.join("state/db"), vec![0x5a; 10_000]).unwrap();
    let store = cluster.open(1).await;
    assert_eq!(
        cluster.leader().await.read(Consistency::Linearizable).await.unwrap().state.projects.len(),
        201
    );
    drop(store);
    cluster.stop(1).await;

    let mut snapshots: Vec<_> = std::fs::read_dir(directory.join("snapshot"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    snapshots.sort();
    let newest = snapshots.last().unwrap();
    let mut bytes = std::fs::read(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(newest, bytes).unwrap();
    // The log before the snapshot is purged, so only the copy in sled reaches it.
    cluster.open(1).await;
    assert_eq!(
        cluster.leader().await.read(Consistency::Linearizable).await.unwrap().state.projects.len(),
        201
    );
    cluster.stop(1).await;

    // With neither, the node says so and does not serve.
    let snapshots = std::fs::read_dir(directory.join("snapshot")).unwrap();
    for path in snapshots.map(|file| file.unwrap().path()) {
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::remove_dir_all(directory.join("state")).unwrap();
    match cluster.try_open(1).await {
        Err(StoreError::Damage(error)) => {
            assert!(error.to_string().contains("is damaged at byte"), "{error}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it served from a damaged snapshot"),
    }
}

/// A node that is killed before its first vote or entry starts again.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_just_begun_starts_again() {
    let mut cluster = Cluster::of(1, Timing::relaxed()).await;
    let node = cluster.admit().await;
    for _ in 0..2 {
        cluster.open(node).await;
        cluster.stop(node).await;
    }
}
