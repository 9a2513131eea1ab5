//! What can befall a node's host: its power is cut, its guard is killed or stands still.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::{cluster::Cluster, power, watchdog::Watchdog};

impl Cluster {
    /// Cuts the power of a node's host: everything on it ends at once.
    ///
    /// # Errors
    /// When something has not ended.
    pub fn cut_host(&mut self, node: usize) -> Result<usize> {
        let row = &mut self.nodes[node];
        let ended = power::cut(&row.directory)?;
        row.kill()?;
        row.kill_guard()?;
        if let Some(watchdog) = &row.watchdog {
            watchdog.power_off();
        }
        Ok(ended)
    }

    /// How often the watchdog of a node's host has cut its power.
    #[must_use]
    pub fn watchdog_resets(&self, node: usize) -> usize {
        self.nodes[node].watchdog.as_ref().map_or(0, Watchdog::resets)
    }

    /// Boots a host whose power was cut.
    ///
    /// # Errors
    /// When its guard or its node cannot be started.
    pub fn boot_host(&mut self, node: usize) -> Result<()> {
        self.cut_host(node)?;
        let row = &mut self.nodes[node];
        row.boot.as_ref().context("the host's boot is the machine's")?.anew()?;
        row.run_guard()?;
        self.run(node)
    }

    /// Kills the guard of a node's host.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill_guard(&mut self, node: usize) -> Result<()> {
        self.nodes[node].kill_guard()
    }

    /// Stops the guard of a node's host where it is.
    ///
    /// # Errors
    /// When there is none.
    pub fn pause_guard(&self, node: usize) -> Result<()> {
        let guard = self.nodes[node].guard.as_ref().context("there is no guard")?;
        Ok(kill_process(Pid::from_child(guard), Signal::STOP)?)
    }

    /// Starts the guard of a node's host again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run_guard(&mut self, node: usize) -> Result<()> {
        self.nodes[node].run_guard()
    }
}
