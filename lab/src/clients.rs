//! How a cluster is asked.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use client::{
    Client, Options,
    v1::{self, clusters_client::ClustersClient},
};

use crate::cluster::{Cluster, PATIENCE};

impl Cluster {
    /// A client of one node alone, which may be away: its calls soon give up.
    ///
    /// # Errors
    /// Never, for an access that was written by `novacron init`.
    pub fn client_of(&self, node: usize) -> Result<Client> {
        self.client_with(vec![self.access.endpoints[node].clone()], Duration::from_secs(2))
    }

    /// A client of one node alone, which must answer, however slow the machine is.
    ///
    /// # Errors
    /// As [`Cluster::client_of`].
    pub fn patient_client_of(&self, node: usize) -> Result<Client> {
        self.client_with(vec![self.access.endpoints[node].clone()], PATIENCE)
    }

    /// A client of all nodes.
    ///
    /// # Errors
    /// As [`Cluster::client_of`].
    pub fn client(&self) -> Result<Client> {
        self.client_with(self.access.endpoints.clone(), Duration::from_secs(60))
    }

    /// A client of all nodes but one.
    ///
    /// # Errors
    /// As [`Cluster::client_of`].
    pub fn client_without(&self, node: usize) -> Result<Client> {
        let mut endpoints = self.access.endpoints.clone();
        endpoints.remove(node);
        self.client_with(endpoints, Duration::from_secs(60))
    }

    /// A client of these nodes' endpoints, whose calls take so long at most.
    ///
    /// # Errors
    /// As [`Cluster::client_of`].
    pub fn client_with(&self, endpoints: Vec<String>, deadline: Duration) -> Result<Client> {
        let access = self.access.clone();
        Ok(Client::new(Options {
            endpoints,
            authority: access.authority,
            server_name: access.server_name,
            bearer: access.bearer,
            deadline,
            traceparent: None,
        })?)
    }

    /// Waits until a node answers a linearizable read.
    ///
    /// # Errors
    /// When it does not in time, or has ended.
    pub async fn await_ready(&mut self, node: usize) -> Result<()> {
        let client = self.client_of(node)?;
        let begun = Instant::now();
        loop {
            if status(&client).await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.nodes[node].ended() {
                bail!("node {} ended with {status}:\n{}", node + 1, self.log(node));
            }
            if begun.elapsed() > PATIENCE {
                bail!("node {} was not ready after {PATIENCE:?}", node + 1);
            }
        }
    }

    /// The number of the node that leads, if one does.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn leader(&self) -> Result<Option<usize>> {
        let leader = status(&self.client()?).await?.leader;
        Ok(leader.strip_prefix('n').and_then(|n| n.parse::<usize>().ok()).map(|n| n - 1))
    }

    /// Waits until so many nodes vote, and any majority of them can go on alone.
    ///
    /// # Errors
    /// When nobody answers, or they do not in time.
    pub async fn await_voters(&self, count: usize) -> Result<()> {
        let (client, begun) = (self.client()?, Instant::now());
        loop {
            let nodes = status(&client).await?.nodes;
            let votes = |node: &&v1::Node| matches!(node.role.as_str(), "leader" | "voter");
            if nodes.iter().filter(votes).count() == count {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "not {count} voters after {PATIENCE:?}: {nodes:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Where the cluster stands.
///
/// # Errors
/// When nobody answers.
pub async fn status(client: &Client) -> Result<v1::Cluster, client::Error> {
    let call = client.call(v1::GetClusterRequest::default(), async |channel, request| {
        ClustersClient::new(channel).get_cluster(request).await
    });
    call.await
}

/// When a step of an operation began, microseconds since 1970, if it did.
#[must_use]
pub fn begun_us(operation: &v1::Operation, step: &str) -> Option<u64> {
    let begun = operation.steps.iter().find(|begun| begun.name == step)?;
    begun.begun_at.parse::<jiff::Timestamp>().ok()?.as_microsecond().try_into().ok()
}
