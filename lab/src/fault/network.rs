//! What can befall the links between hosts.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{cluster::Cluster, late::Late, network::Network};

impl Cluster {
    /// Cuts links between hosts, each in the direction from → to, and no others.
    ///
    /// # Errors
    /// When the hosts have no network of their own.
    pub fn cut(&self, links: &[(usize, usize)]) -> Result<()> {
        self.network()?.cut(links)
    }

    /// Cuts every link between these nodes and the others, in both directions.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn isolate(&self, nodes: &[usize]) -> Result<()> {
        let all = 0..self.nodes.len();
        let pairs = all.clone().flat_map(|from| all.clone().map(move |to| (from, to)));
        let crosses = |(from, to): &(usize, usize)| nodes.contains(from) != nodes.contains(to);
        self.cut(&pairs.filter(crosses).collect::<Vec<_>>())
    }

    /// Mends every link.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn heal(&self) -> Result<()> {
        self.cut(&[])
    }

    /// How many packets were dropped on cut links so far: the proof that a cut happened.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn dropped(&self) -> Result<u64> {
        self.network()?.dropped()
    }

    /// Loses so many of a hundred packets between hosts.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn lose_packets(&self, percent: u32) -> Result<()> {
        self.network()?.lose(percent)
    }

    /// Loses no packets any more; the answer is how many were lost so far.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn keep_packets(&self) -> Result<u64> {
        self.network()?.keep()
    }

    /// Sends so many of a hundred packets between the hosts a second time, whichever chance wants.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn send_packets_twice(&self, percent: u32) -> Result<()> {
        self.network()?.send_twice(percent)
    }

    /// Sends each packet once; the answer is how many were sent twice so far.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn send_packets_once(&self) -> Result<u64> {
        self.network()?.send_once()
    }

    /// Makes what other hosts send to a node's late, each packet by a time up to `most`: they overtake each
    /// other.
    ///
    /// # Errors
    /// As [`Cluster::cut`], or when the kernel hands no packets over.
    pub fn make_late(&self, node: usize, most: Duration) -> Result<Late> {
        self.network()?.make_late(node, most)
    }

    /// Lets a node's host send so much at most, kbit/s.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn narrow(&self, node: usize, rate_kbit: u32) -> Result<()> {
        self.network()?.narrow(node, rate_kbit)
    }

    /// Lets a node's host send as fast as it can; the answer is how often something had to wait.
    ///
    /// # Errors
    /// When it could already.
    pub fn widen(&self, node: usize) -> Result<u64> {
        self.network()?.widen(node)
    }

    pub(super) fn network(&self) -> Result<&Network> {
        self.network.as_ref().context("the hosts have no network of their own")
    }
}
