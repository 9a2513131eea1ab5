//! A cluster for tests, and clients of it.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use actors::Receiver;
use client::{Client, Error, Options, v1};
use novacron::dev::{Access, DevCluster, DevOptions, Over};
use raft_store::Timing;
use tempfile::TempDir;
use v1::{
    clusters_client::ClustersClient, credentials_client::CredentialsClient,
    images_client::ImagesClient, vms_client::VmsClient,
};

pub struct Lab {
    pub cluster: DevCluster,
    directory: TempDir,
}

impl Lab {
    pub async fn start(nodes: usize, hosts: usize, failures_per_mille: u64) -> Lab {
        Lab::begin(nodes, hosts, failures_per_mille, None, Vec::new()).await
    }

    /// The same, with somebody who is told of alerts.
    pub async fn start_telling(nodes: usize, hosts: usize, receivers: Vec<Receiver>) -> Lab {
        Lab::begin(nodes, hosts, 0, None, receivers).await
    }

    /// The same, with something over each host's driver.
    pub async fn start_over(nodes: usize, hosts: usize, over: Over) -> Lab {
        Lab::begin(nodes, hosts, 0, Some(over), Vec::new()).await
    }

    async fn begin(
        nodes: usize,
        hosts: usize,
        failures_per_mille: u64,
        over: Option<Over>,
        receivers: Vec<Receiver>,
    ) -> Lab {
        let directory = tempfile::tempdir().unwrap();
        let options = DevOptions {
            nodes,
            hosts,
            directory: directory.path().to_owned(),
            failures_per_mille,
            timing: Timing::relaxed(),
            over,
            receivers: receivers.into(),
        };
        let cluster = DevCluster::start(options).await.unwrap();
        Lab { cluster, directory }
    }

    /// Where the cluster lies, a directory for each node in it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The number of the node that leads.
    pub async fn leader(&self) -> usize {
        let client = self.client();
        let call = client.call(v1::GetClusterRequest::default(), async |channel, request| {
            ClustersClient::new(channel).get_cluster(request).await
        });
        let leader = call.await.unwrap().leader;
        leader.trim_start_matches('n').parse::<usize>().unwrap() - 1
    }

    pub fn client(&self) -> Client {
        client(&self.cluster.access)
    }

    /// Waits until so many nodes vote: votes come one after the other, once a node has kept up for a
    /// while.
    pub async fn await_voters(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let client = self.client();
        loop {
            let cluster = client
                .call(v1::GetClusterRequest::default(), async |channel, request| {
                    ClustersClient::new(channel).get_cluster(request).await
                })
                .await
                .unwrap();
            let votes = |node: &&v1::Node| matches!(node.role.as_str(), "leader" | "voter");
            if cluster.nodes.iter().filter(votes).count() == count {
                return;
            }
            assert!(Instant::now() < deadline, "not {count} voters: {:?}", cluster.nodes);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// A client with a credential of its own.
    pub async fn client_as(&self, role: &str, name: &str) -> (Client, String) {
        let admin = self.client();
        let request = v1::CreateCredentialRequest {
            mutation: admin.mutation().await.unwrap(),
            name: name.to_owned(),
            role: role.to_owned(),
            ttl_seconds: 0,
        };
        let made = admin
            .call(request, async |channel, request| {
                CredentialsClient::new(channel).create_credential(request).await
            })
            .await
            .unwrap();
        let access = Access { bearer: made.bearer.clone(), ..self.cluster.access.clone() };
        (client(&access), made.bearer)
    }

    pub async fn image(&self, name: &str) {
        let client = self.client();
        let request = v1::CreateImageRequest {
            mutation: client.mutation().await.unwrap(),
            name: name.to_owned(),
            ..Default::default()
        };
        let made = client.call(request, async |channel, request| {
            ImagesClient::new(channel).create_image(request).await
        });
        made.await.unwrap();
    }
}

pub fn client(access: &Access) -> Client {
    let options = Options {
        endpoints: access.endpoints.clone(),
        authority: access.authority.clone(),
        server_name: access.server_name.clone(),
        bearer: access.bearer.clone(),
        deadline: Duration::from_secs(60),
        traceparent: None,
    };
    Client::new(options).unwrap()
}

pub fn spec() -> v1::VmSpec {
    v1::VmSpec { vcpus: 1, memory_mib: 64, image: "tiny".to_owned(), ..Default::default() }
}

pub async fn create(client: &Client, name: &str, spec: v1::VmSpec) -> Result<v1::Outcome, Error> {
    let request = v1::CreateVmRequest {
        mutation: client.mutation().await?,
        project: String::new(),
        name: name.to_owned(),
        spec: Some(spec),
        stopped: false,
    };
    let outcome = client
        .call(request, async |channel, request| VmsClient::new(channel).create_vm(request).await)
        .await?;
    client.note(outcome.revision);
    Ok(outcome)
}

pub async fn get(client: &Client, name: &str) -> Result<v1::Vm, Error> {
    let request = v1::GetVmRequest { vm: name.to_owned(), ..Default::default() };
    client
        .call(request, async |channel, request| VmsClient::new(channel).get_vm(request).await)
        .await
}

pub async fn done(client: &Client, outcome: &v1::Outcome) -> v1::Operation {
    client.wait(&outcome.operation, Duration::from_secs(60), |_| ()).await.unwrap()
}
