//! A cluster of NovaCron as it is run in earnest: three nodes with the default timing, TLS among them and to
//! their clients, who show a credential.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use client::{
    Client,
    v1::{self, images_client::ImagesClient},
};
use lab::{Cluster, ClusterOptions, Hosts, Pace, Traces};

/// How many nodes, as etcd has members.
pub(crate) const NODES: usize = 3;
/// What VMs boot from, if they ever do.
pub(crate) const IMAGE: &str = "none";
/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Clients that share one connection.
pub(crate) const CLIENTS_OF_CONNECTION: usize = 8;

/// A running cluster.
pub(crate) struct Ours {
    pub(crate) cluster: Cluster,
    pub(crate) nodes: usize,
}

impl Ours {
    /// Starts one of the programs in a directory.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn start(programs: PathBuf) -> Result<Ours> {
        Ours::with_hosts(programs, 1).await
    }

    /// The same, whose traces are told, as many as by default.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn traced(programs: PathBuf, collector: SocketAddr) -> Result<Ours> {
        Ours::with(programs, 1, Some(Traces { collector, percent: None })).await
    }

    /// The same, with so many simulated hosts for each node.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn with_hosts(programs: PathBuf, each: usize) -> Result<Ours> {
        Ours::with(programs, each, None).await
    }

    async fn with(programs: PathBuf, each: usize, traces: Option<Traces>) -> Result<Ours> {
        let more_hosts = each.saturating_sub(1);
        let options = Ours::options(NODES, Hosts::Simulated, programs);
        Ours::of(ClusterOptions { more_hosts, traces, ..options }).await
    }

    /// What such a cluster is like.
    pub(crate) fn options(nodes: usize, hosts: Hosts, programs: PathBuf) -> ClusterOptions {
        ClusterOptions { pace: Pace::Normal, ..ClusterOptions::new(nodes, hosts, programs) }
    }

    /// Starts one.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn of(options: ClusterOptions) -> Result<Ours> {
        let nodes = options.nodes;
        let cluster = Cluster::start(options, |_| ()).await?;
        cluster.await_voters(nodes).await?;
        let ours = Ours { cluster, nodes };
        ours.make_image().await?;
        Ok(ours)
    }

    /// Makes the image that VMs name: there is nothing in it.
    async fn make_image(&self) -> Result<()> {
        let client = self.cluster.client()?;
        let request = v1::CreateImageRequest {
            mutation: client.mutation().await?,
            name: IMAGE.to_owned(),
            ..Default::default()
        };
        let call = async |channel, request| ImagesClient::new(channel).create_image(request).await;
        client.call(request, call).await?;
        Ok(())
    }

    /// The processes of its nodes.
    ///
    /// # Errors
    /// When one does not run.
    pub(crate) fn pids(&self) -> Result<Vec<u32>> {
        (0..self.nodes).map(|node| self.cluster.pid(node)).collect()
    }

    /// Stops its nodes' processes.
    ///
    /// # Errors
    /// When one does not run.
    pub(crate) fn pause(&self) -> Result<()> {
        (0..self.nodes).try_for_each(|node| self.cluster.pause(node))
    }

    /// Lets them go on, and waits for so long and until they have a leader.
    ///
    /// # Errors
    /// When one does not run, or they have no leader in time.
    pub(crate) async fn resume(&self, settle: Duration) -> Result<()> {
        (0..self.nodes).try_for_each(|node| self.cluster.resume(node))?;
        tokio::time::sleep(settle).await;
        self.cluster.await_voters(self.nodes).await
    }

    /// The newest revision.
    ///
    /// # Errors
    /// When nobody answers.
    pub(crate) async fn revision(&self) -> Result<u64> {
        Ok(lab::status(&self.cluster.client()?).await?.revision)
    }

    /// Waits until every operation has ended.
    ///
    /// # Errors
    /// When one has not in time, or nobody answers.
    pub(crate) async fn settled(&self, patience: Duration) -> Result<()> {
        let client = self.cluster.client()?;
        let begun = Instant::now();
        loop {
            let open = lab::status(&client).await?.open_operations;
            if open == 0 {
                return Ok(());
            }
            ensure!(begun.elapsed() < patience, "{open} operations have not ended in {patience:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A client for each of so many; several share a connection to the node that leads.
    ///
    /// # Errors
    /// When none does.
    pub(crate) async fn many_clients(&self, count: usize) -> Result<Vec<Client>> {
        let few = self.clients(count.div_ceil(CLIENTS_OF_CONNECTION)).await?;
        Ok(few.into_iter().cycle().take(count).collect())
    }

    /// So many connections to the node that leads.
    ///
    /// # Errors
    /// When none does.
    pub(crate) async fn clients(&self, count: usize) -> Result<Vec<Client>> {
        let leader = self.cluster.leader().await?.context("there is no leader")?;
        let endpoint = self.cluster.access.endpoints[leader].clone();
        (0..count).map(|_| self.cluster.client_with(vec![endpoint.clone()], DEADLINE)).collect()
    }
}
