//! What is seen of a cluster's nodes and hosts from outside: their files and processes.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{
    cluster::Cluster, hypervisor::Hypervisor, ledger::Ledger, records::HostRecords,
    witness::Witness,
};

impl Cluster {
    /// The pid of a node's process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self, node: usize) -> Result<u32> {
        self.nodes[node].pid()
    }

    /// The pids of a node's guests.
    #[must_use]
    pub fn guests(&self, node: usize) -> Vec<i32> {
        self.nodes[node].hypervisor.as_ref().map(Hypervisor::guests).unwrap_or_default()
    }

    /// Where a host keeps what a VM's guest wrote to its console. Hosts are called `h1`, `h2` ….
    #[must_use]
    pub fn console_file(&self, host: &str, vm: &str) -> PathBuf {
        let node = self.root.path().join(host.replace('h', "n"));
        node.join("d/bodies").join(vm).join("console.log")
    }

    /// Where the pool lies that all hosts see.
    #[must_use]
    pub fn pool(&self) -> PathBuf {
        self.root.path().join("pool")
    }

    /// Where a node's host keeps what a VM's body is made of.
    #[must_use]
    pub fn body_directory(&self, node: usize, vm: &str) -> PathBuf {
        self.nodes[node].bodies().join(vm)
    }

    /// Where the ledgers of guests lie: outside of every host.
    pub(crate) fn ledgers(&self) -> PathBuf {
        self.root.path().join("ledgers")
    }

    /// When each host executed a VM's guest, by the word of the processes that did.
    ///
    /// # Errors
    /// When a record is damaged.
    pub fn witness(&self, vm: &str) -> Result<Witness> {
        let hypervisors = self.nodes.iter().filter_map(|node| node.hypervisor.as_ref());
        let hosts: Vec<&Path> = hypervisors.map(Hypervisor::directory).collect();
        Witness::read(&hosts, vm)
    }

    /// What a VM's guest wrote to the disk that all hosts share.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn ledger(&self, vm: &str) -> Result<Ledger> {
        Ledger::read(&self.ledgers().join(vm))
    }

    /// Where real hosts, and simulated ones that are apart from their nodes, write down what they execute.
    #[must_use]
    pub fn host_records(&self) -> HostRecords {
        HostRecords::of(&self.nodes)
    }

    /// How many bodies' files lie on a node's host.
    #[must_use]
    pub fn bodies(&self, node: usize) -> usize {
        std::fs::read_dir(self.nodes[node].bodies()).map_or(0, Iterator::count)
    }

    /// A node's log.
    #[must_use]
    pub fn log(&self, node: usize) -> String {
        read(&self.nodes[node].log_file())
    }

    /// What a host's guard has said.
    #[must_use]
    pub fn guard_log(&self, node: usize) -> String {
        read(&self.nodes[node].directory.join("guard.log"))
    }

    /// What the driver of a node's host has logged.
    #[must_use]
    pub fn driver_log(&self, node: usize) -> String {
        read(&self.nodes[node].directory.join("d/driver.log"))
    }

    /// What the driver of a node's hypervisor has logged.
    #[must_use]
    pub fn real_driver_log(&self, node: usize) -> String {
        read(&self.nodes[node].real_state.join("driver.log"))
    }

    /// The process of a node's libvirtd, if it has one that runs.
    #[must_use]
    pub fn libvirtd(&self, node: usize) -> Option<i32> {
        self.nodes[node].hypervisor.as_ref().and_then(Hypervisor::daemon)
    }
}

/// A file, whatever was written into it; nothing when there is none.
fn read(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
}
