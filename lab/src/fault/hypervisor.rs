//! What can befall a host's hypervisor: its libvirtd, its guests, the driver that drives it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};

use crate::{
    cluster::{Cluster, PATIENCE},
    hypervisor::Hypervisor,
    proxy::Proxy,
    rpc::Strike,
};

impl Cluster {
    /// Kills a host's libvirtd; it is started again, as on any machine. Its guests run on.
    ///
    /// # Errors
    /// When the host has none.
    pub fn kill_libvirtd(&self, node: usize) -> Result<()> {
        self.hypervisor(node)?.kill_daemon()
    }

    /// Has every network that a host's libvirtd starts wait, as behind a script of the machine's owner that
    /// hangs. The call that is made for a guest's network is held up with it, and no other.
    ///
    /// # Errors
    /// When the host has none.
    pub fn hold_networks(&self, node: usize) -> Result<()> {
        self.hypervisor(node)?.hold_networks()
    }

    /// Waits until a network waits.
    ///
    /// # Errors
    /// When none does in time.
    pub async fn await_held_network(&self, node: usize) -> Result<()> {
        let (hypervisor, begun) = (self.hypervisor(node)?, Instant::now());
        while !hypervisor.network_was_held() {
            ensure!(begun.elapsed() < PATIENCE, "no network is being started");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Lets what [`Cluster::hold_networks`] holds go on.
    ///
    /// # Errors
    /// When nothing is held.
    pub fn release_networks(&self, node: usize) -> Result<()> {
        self.hypervisor(node)?.release_networks()
    }

    /// Has one message between two hosts' libvirt daemons struck, of those that another host's sends to
    /// this node's or gets from it.
    ///
    /// # Errors
    /// When the host has none.
    pub fn intercept(&self, node: usize, strike: Strike) -> Result<Proxy> {
        let hypervisor = self.hypervisor(node)?;
        let program = self.nodes[node].programs.join("novacron-lab-rpc-proxy");
        let space = self.network()?.space(node);
        Proxy::start(&program, space, node, hypervisor.directory(), strike)
    }

    /// Kills the processes of a host that execute a VM's guest; the answer is how many there were.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub fn kill_guest(&self, node: usize, vm: &str) -> Result<usize> {
        kill_all(self.guests_of(node, vm))
    }

    /// Kills every process of a host that executes a guest; the answer is how many there were.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub fn kill_guests(&self, node: usize) -> Result<usize> {
        kill_all(self.guests(node))
    }

    /// The processes of a host that execute, or are about to execute, a VM's guest.
    #[must_use]
    pub fn guests_of(&self, node: usize, vm: &str) -> Vec<i32> {
        let executes = |pid: &i32| {
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.split(|byte| *byte == 0).any(|argument| argument == vm.as_bytes())
        };
        self.guests(node).into_iter().filter(executes).collect()
    }

    /// Stops the driver process of a node where it is.
    ///
    /// # Errors
    /// When there is none.
    pub fn pause_driver(&self, node: usize) -> Result<()> {
        let pid = self.nodes[node].driver().context("there is no driver process")?;
        Ok(kill_process(pid, Signal::STOP)?)
    }

    /// Lets a paused driver process go on.
    ///
    /// # Errors
    /// When there is none.
    pub fn resume_driver(&self, node: usize) -> Result<()> {
        let pid = self.nodes[node].driver().context("there is no driver process")?;
        Ok(kill_process(pid, Signal::CONT)?)
    }

    /// The driver process of a node, if there is one.
    #[must_use]
    pub fn driver(&self, node: usize) -> Option<Pid> {
        self.nodes[node].driver()
    }

    /// The driver process of a node's hypervisor, if there is one.
    #[must_use]
    pub fn real_driver(&self, node: usize) -> Option<Pid> {
        self.nodes[node].real_driver()
    }

    /// Has all guests of a node's host crash, when that is apart from it.
    ///
    /// # Errors
    /// When its driver does not run.
    pub fn crash_guests(&self, node: usize) -> Result<()> {
        let pid = self.driver(node).context("there is no driver process")?;
        Ok(kill_process(pid, Signal::USR1)?)
    }

    /// How many guests of a node's host were made to crash so far.
    #[must_use]
    pub fn crashed_guests(&self, node: usize) -> usize {
        let log = self.driver_log(node);
        let counts = log.lines().filter_map(|line| line.strip_prefix("guests that crashed: "));
        counts.filter_map(|count| count.parse::<usize>().ok()).sum()
    }

    /// Kills the driver process of a node's hypervisor, if there is one.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill_real_driver(&self, node: usize) -> Result<()> {
        kill_all(self.real_driver(node).map(|pid| pid.as_raw_nonzero().get())).map(drop)
    }

    /// Kills the driver process of a node.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill_driver(&self, node: usize) -> Result<()> {
        let pid = self.driver(node).context("there is no driver process")?;
        // It may just have ended.
        let _ = kill_process(pid, Signal::KILL);
        Ok(())
    }

    fn hypervisor(&self, node: usize) -> Result<&Hypervisor> {
        self.nodes[node].hypervisor.as_ref().context("there is no hypervisor")
    }
}

/// Kills processes; the answer is how many there still were.
fn kill_all(pids: impl IntoIterator<Item = i32>) -> Result<usize> {
    let mut killed = 0;
    for pid in pids.into_iter().filter_map(Pid::from_raw) {
        match kill_process(pid, Signal::KILL) {
            Ok(()) => killed += 1,
            Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(killed)
}
