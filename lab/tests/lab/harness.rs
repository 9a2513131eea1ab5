//! What the tests share.

use std::{
    path::PathBuf,
    sync::OnceLock,
    time::{Duration, Instant},
};

use client::{Client, v1};
use novacron_lab::{Cluster, ClusterOptions, Fencing, Guest, Hosts};
use v1::{images_client::ImagesClient, vms_client::VmsClient};

/// Where the programs lie: cargo builds them beside the tests.
pub fn programs() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().to_owned()
}

pub async fn cluster(hosts: Hosts) -> Cluster {
    cluster_of(3, hosts).await
}

pub async fn cluster_of(nodes: usize, hosts: Hosts) -> Cluster {
    cluster_with(nodes, hosts, Fencing::None).await
}

pub async fn cluster_with(nodes: usize, hosts: Hosts, fencing: Fencing) -> Cluster {
    start(ClusterOptions { nodes, fencing, ..options(hosts) }).await
}

/// Three nodes that are well, and nothing that would fence them.
pub fn options(hosts: Hosts) -> ClusterOptions {
    ClusterOptions::new(3, hosts, programs())
}

pub async fn start(options: ClusterOptions) -> Cluster {
    Cluster::start(options, |step| println!("{step}")).await.unwrap()
}

/// The tiny guest. The first test that asks makes it.
pub fn guest() -> &'static Guest {
    static MADE: OnceLock<Guest> = OnceLock::new();
    MADE.get_or_init(|| Guest::make(&programs()).unwrap())
}

pub fn spec(image: &str) -> v1::VmSpec {
    v1::VmSpec { vcpus: 1, memory_mib: 96, image: image.to_owned(), ..Default::default() }
}

pub async fn simulated_image(client: &Client) {
    let request = v1::CreateImageRequest {
        mutation: client.mutation().await.unwrap(),
        name: "none".to_owned(),
        ..Default::default()
    };
    let made = client.call(request, async |channel, request| {
        ImagesClient::new(channel).create_image(request).await
    });
    made.await.unwrap();
}

pub async fn create(
    client: &Client,
    name: &str,
    spec: v1::VmSpec,
) -> Result<v1::Outcome, client::Error> {
    let request = v1::CreateVmRequest {
        mutation: client.mutation().await?,
        name: name.to_owned(),
        spec: Some(spec),
        ..Default::default()
    };
    let call = client
        .call(request, async |channel, request| VmsClient::new(channel).create_vm(request).await);
    let outcome = call.await?;
    client.note(outcome.revision);
    Ok(outcome)
}

pub async fn get(client: &Client, name: &str) -> Result<v1::Vm, client::Error> {
    let request = v1::GetVmRequest { vm: name.to_owned(), ..Default::default() };
    client
        .call(request, async |channel, request| VmsClient::new(channel).get_vm(request).await)
        .await
}

pub async fn console(client: &Client, name: &str) -> String {
    let request =
        v1::GetConsoleLogRequest { vm: name.to_owned(), bytes_max: 1 << 20, ..Default::default() };
    let log = client.call(request, async |channel, request| {
        VmsClient::new(channel).get_console_log(request).await
    });
    log.await.map(|log| log.text).unwrap_or_default()
}

/// Waits until a VM is in a phase.
pub async fn await_phase(client: &Client, name: &str, phase: &str, patience: Duration) -> Duration {
    let begun = Instant::now();
    loop {
        let seen = get(client, name).await.map(|vm| vm.phase);
        if seen.as_ref().is_ok_and(|seen| seen == phase) {
            return begun.elapsed();
        }
        assert!(
            begun.elapsed() < patience,
            "{name} is {seen:?} and not {phase} after {patience:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
