//! What can befall a cluster's nodes, and how it is seen to have happened: here their processes.

mod disk;
mod host;
mod hypervisor;
mod network;

use std::{
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::{
    cgroup::{Limit, Limited},
    cluster::{Cluster, PATIENCE},
};

/// What an actor says that panics because a test wants it: `actors::planted` has the same words.
pub const PLANTED: &str = "a test planted this panic";

impl Cluster {
    /// Kills a node's process at once, as a power cut does. Its guests run on. The answer is how it ended, if
    /// there was one: it may have before.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&mut self, node: usize) -> Result<Option<ExitStatus>> {
        self.nodes[node].kill()
    }

    /// Stops a node's process where it is, as a machine does that is out of breath.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, node: usize) -> Result<()> {
        self.nodes[node].signal(Signal::STOP)
    }

    /// The state of a node's process, as the system tells it: `T` is stopped; none when there is none.
    #[must_use]
    pub fn process_state(&self, node: usize) -> Option<char> {
        let pid = self.nodes[node].process.as_ref()?.id();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// Lets a paused node go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self, node: usize) -> Result<()> {
        self.nodes[node].signal(Signal::CONT)
    }

    /// Limits what a node's process may use.
    ///
    /// # Errors
    /// When the node does not run, or the system refuses.
    pub fn limit(&self, node: usize, limit: Limit) -> Result<Limited> {
        Limited::begin(self.nodes[node].pid()?, limit)
    }

    /// Moves the wall clock of a node's process, to so many seconds off the right time.
    ///
    /// # Errors
    /// When its clock cannot be moved.
    pub fn set_wall_clock(&self, node: usize, off_s: i64) -> Result<()> {
        let clock = self.nodes[node].wall_clock.as_ref();
        clock.context("the node's clock cannot be moved")?.set(off_s)
    }

    /// How a node's process has ended by itself, if it has.
    pub fn ended(&mut self, node: usize) -> Option<ExitStatus> {
        self.nodes[node].ended()
    }

    /// Waits until a node's process has ended by itself; the answer is its exit code.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn await_end(&mut self, node: usize) -> Result<Option<i32>> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.nodes[node].ended() {
                return Ok(status.code());
            }
            ensure!(begun.elapsed() < PATIENCE, "node {} still runs after {PATIENCE:?}", node + 1);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Has some actors of a node panic.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn plant_panics(&self, node: usize) -> Result<()> {
        Ok(std::fs::write(self.nodes[node].panics(), "")?)
    }

    /// How many actors of a node have panicked because of that.
    #[must_use]
    pub fn planted_panics(&self, node: usize) -> usize {
        self.log(node).lines().filter(|line| *line == PLANTED).count()
    }
}
