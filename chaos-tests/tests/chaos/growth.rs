//! A cluster of processes grows from three nodes to five and shrinks again while it is written to,
//! its leader changes and is killed, and one request is sent again and again through every node.

use std::{sync::Arc, time::Duration};

use client::{
    Client,
    v1::{self, projects_client::ProjectsClient},
};
use lab::{Cluster, Storage, status};
use tokio::task::JoinSet;

use crate::trial::{NODES, Trial};

/// One request under one id, sent through some nodes over and over.
struct Storm {
    senders: JoinSet<Vec<v1::Outcome>>,
    stop: Arc<tokio::sync::Notify>,
}

impl Storm {
    async fn begin(cluster: &Cluster) -> Storm {
        let mutation = cluster.client().unwrap().mutation().await.unwrap();
        let request = v1::CreateProjectRequest { mutation, name: "once".to_owned() };
        let stop = Arc::new(tokio::sync::Notify::new());
        let mut senders = JoinSet::new();
        for node in 0..NODES {
            let (client, request) = (cluster.client_of(node).unwrap(), request.clone());
            let stop = stop.clone();
            senders.spawn(async move {
                let mut answers = Vec::new();
                loop {
                    let stopped = stop.notified();
                    tokio::select! {
                        answer = send(&client, request.clone()) => answers.extend(answer),
                        () = stopped => return answers,
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
        Storm { senders, stop }
    }

    /// Every answer that came.
    async fn end(mut self) -> Vec<v1::Outcome> {
        let mut answers = Vec::new();
        while !self.senders.is_empty() {
            self.stop.notify_waiters();
            let next = self.senders.join_next();
            if let Ok(Some(some)) = tokio::time::timeout(Duration::from_millis(10), next).await {
                answers.extend(some.unwrap());
            }
        }
        answers
    }
}

/// Its answer, if a node gave one in time.
async fn send(client: &Client, request: v1::CreateProjectRequest) -> Option<v1::Outcome> {
    let sent = client.call(request, async |channel, request| {
        ProjectsClient::new(channel).create_project(request).await
    });
    match sent.await {
        Ok(outcome) => Some(outcome),
        Err(client::Error::Unreachable(_)) => None,
        Err(error) => panic!("the request was refused: {error}"),
    }
}

/// Hands leadership to a node that does not have it.
async fn hand_over(cluster: &Cluster) {
    let leader = cluster.leader().await.unwrap();
    let heir = (0..NODES).find(|node| Some(*node) != leader).unwrap();
    cluster.novacron(heir, &["cluster", "transfer-leader", &format!("n{}", heir + 1)]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_become_five_and_three_again_under_load() {
    let mut trial = Trial::start(Storage::Directory).await.unwrap();
    let client = trial.cluster.client().unwrap();
    let storm = Storm::begin(&trial.cluster).await;
    let writers = trial.counters.write(&client);
    for voters in [4, 5] {
        let node = trial.cluster.grow().await.unwrap();
        trial.cluster.await_voters(voters).await.unwrap();
        println!("n{} votes, after {} writes", node + 1, trial.counters.acknowledged());
        hand_over(&trial.cluster).await;
        trial.await_progress(&[]).await.unwrap();
    }
    let leader = trial.cluster.leader().await.unwrap().unwrap();
    trial.cluster.kill(leader).unwrap();
    trial.await_progress(&[leader]).await.unwrap();
    trial.cluster.run(leader).unwrap();
    trial.cluster.await_ready(leader).await.unwrap();
    println!("n{} led, was killed and came back", leader + 1);
    for gone in [4, 3] {
        trial.cluster.novacron(0, &["cluster", "remove", &format!("n{}", gone + 1)]).unwrap();
        let code = trial.cluster.await_end(gone).await.unwrap();
        let log = trial.cluster.log(gone);
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("node reset"), "the removed node does not say what to do: {log}");
        trial.cluster.await_voters(gone).await.unwrap();
        hand_over(&trial.cluster).await;
        trial.await_progress(&[]).await.unwrap();
    }
    drop(writers);
    let answers = storm.end().await;
    let first = answers.first().unwrap();
    assert!(answers.iter().all(|answer| answer == first), "{answers:?}");
    println!(
        "{} writes acknowledged; one request was answered {} times, alike, over {} terms",
        trial.counters.acknowledged(),
        answers.len(),
        status(&client).await.unwrap().term,
    );
    assert!(answers.len() > 100, "the request was answered {} times only", answers.len());
    for node in 0..NODES {
        let client = trial.cluster.patient_client_of(node).unwrap();
        let lost = trial.counters.check(&client).await.unwrap();
        assert!(lost.is_ok(), "n{}: {lost:?}", node + 1);
    }
}
