//! What can befall a node's disk, and the log on it.

use anyhow::Result;

use crate::{
    cluster::Cluster,
    damage::{self, Flipped},
    disk::Waiting,
    syncs::{TamperedSyncs, Tampering},
};

impl Cluster {
    /// Has every sync of a node's process fail, as on a disk that is broken, or take long.
    ///
    /// # Errors
    /// When the node does not run, or nobody can stand between it and the system.
    pub fn tamper_with_syncs(&self, node: usize, how: Tampering) -> Result<TamperedSyncs> {
        TamperedSyncs::begin(self.nodes[node].pid()?, how, &self.nodes[node].directory)
    }

    /// Damages the log of a node that does not run: one bit of what was synced is another. The answer takes it
    /// back; it is none when there is too little of a log.
    ///
    /// # Errors
    /// When there is no log.
    pub fn flip_bit(&self, node: usize) -> Result<Option<Flipped>> {
        Flipped::flip(&self.nodes[node].data().join("log"))
    }

    /// Leaves half a write behind the end of the log of a node that does not run, as a crash does; the answer is
    /// how many bytes.
    ///
    /// # Errors
    /// When there is no log.
    pub fn tear_tail(&self, node: usize) -> Result<usize> {
        damage::tear_tail(&self.nodes[node].data().join("log"))
    }

    /// Cuts the power of a killed node's disk and gives it back; the answer is how many bytes that
    /// were not synced are known to be lost.
    ///
    /// # Errors
    /// When the node has no disk of its own, runs, or nothing was lost.
    pub fn cut_power(&self, node: usize) -> Result<u64> {
        self.nodes[node].cut_power()
    }

    /// Fills a node's disk until so much of it is used, percent; 100 is until it takes no more. The answer is
    /// whether it took no more.
    ///
    /// # Errors
    /// When the node has no disk of its own.
    pub fn fill_disk(&self, node: usize, percent: u64) -> Result<bool> {
        self.nodes[node].disk()?.fill(percent)
    }

    /// Frees what [`Cluster::fill_disk`] took.
    ///
    /// # Errors
    /// When it was not filled.
    pub fn free_disk(&self, node: usize) -> Result<()> {
        self.nodes[node].disk()?.free()
    }

    /// Has a node's disk take nothing, as one that hangs: whoever writes waits. The answer is one that does.
    ///
    /// # Errors
    /// When the node has no disk of its own.
    pub fn freeze_disk(&self, node: usize) -> Result<Waiting> {
        self.nodes[node].disk()?.freeze()
    }

    /// Lets what waits for a frozen disk go on.
    ///
    /// # Errors
    /// When it is not frozen.
    pub fn thaw_disk(&self, node: usize) -> Result<()> {
        self.nodes[node].disk()?.thaw()
    }
}
