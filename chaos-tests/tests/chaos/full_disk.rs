//! A node's disk fills up. Growth is refused in time; a disk that takes no more stops its node and
//! nobody else, and nothing acknowledged is lost.

use std::time::{Duration, Instant};

use client::v1::{self, projects_client::ProjectsClient};
use lab::Storage;

use crate::trial::{NODES, Trial, is_possible};

const PATIENCE: Duration = Duration::from_secs(60);

async fn make_project(client: &client::Client, name: &str) -> Result<(), client::Error> {
    let mutation = client.mutation().await.unwrap();
    let request = v1::CreateProjectRequest { mutation, name: name.to_owned() };
    let made = client.call(request, async |channel, request| {
        ProjectsClient::new(channel).create_project(request).await
    });
    made.await.map(drop)
}

async fn delete_project(client: &client::Client, name: &str) -> Result<(), client::Error> {
    let mutation = client.mutation().await.unwrap();
    let request = v1::DeleteProjectRequest { mutation, project: name.to_owned() };
    let gone = client.call(request, async |channel, request| {
        ProjectsClient::new(channel).delete_project(request).await
    });
    gone.await.map(drop)
}

/// Waits until growth is refused, or is not any more.
async fn await_growth(client: &client::Client, possible: bool) {
    let begun = Instant::now();
    for n in 0.. {
        let name = format!("probe-{possible}-{n}");
        match make_project(client, &name).await {
            Ok(()) if possible => return,
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.reason(), "DISK_FULL", "{error}");
                if !possible {
                    return;
                }
            }
        }
        assert!(begun.elapsed() < PATIENCE, "growth is still possible: {}", !possible);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_growth_and_then_its_node() {
    if !is_possible() {
        return;
    }
    let mut trial = Trial::start(Storage::Disk).await.unwrap();
    let client = trial.cluster.client().unwrap();
    make_project(&client, "before").await.unwrap();

    // Nearly full: what grows is refused, what shrinks is done.
    let victim = trial.cluster.leader().await.unwrap().unwrap();
    trial.cluster.fill_disk(victim, 93).unwrap();
    await_growth(&client, false).await;
    delete_project(&client, "before").await.unwrap();
    trial.cluster.free_disk(victim).unwrap();
    await_growth(&client, true).await;

    // Full at once, under load: the node cannot keep its log and stops; the others go on.
    let writers = trial.counters.write(&client);
    tokio::time::sleep(Duration::from_secs(1)).await;
    trial.cluster.fill_disk(victim, 100).unwrap();
    let code = trial.cluster.await_end(victim).await.unwrap();
    // Not 3: its data can be trusted.
    assert_eq!(code, Some(1), "{}", trial.cluster.log(victim));
    trial.cluster.kill(victim).unwrap();
    trial.await_progress(&[victim]).await.unwrap();
    let said = trial.cluster.log(victim);
    assert!(said.contains("space"), "it does not say why:\n{said}");
    assert!(!said.contains("panicked"), "{said}");
    drop(writers);

    // With room again it comes back and has everything.
    trial.cluster.free_disk(victim).unwrap();
    trial.recover(&[victim]).await.unwrap();
    assert!(trial.counters.acknowledged() > NODES as u64);
}
