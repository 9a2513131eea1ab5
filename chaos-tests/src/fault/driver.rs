//! The driver of a node's host or of its hypervisor is killed. Its guests go on, and the node starts another one.

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::{Fault, Proof, Site};

#[derive(Default)]
pub(super) struct DriverKilled {
    victim: Option<usize>,
    is_real: bool,
    pid: i32,
}

impl DriverKilled {
    /// The driver of that kind that serves now.
    fn serving(&self, site: &Site, node: usize) -> Option<i32> {
        let cluster = &site.cluster;
        let pid = if self.is_real { cluster.real_driver(node) } else { cluster.driver(node) };
        pid.map(|pid| pid.as_raw_nonzero().get())
    }
}

#[async_trait]
impl Fault for DriverKilled {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.take() else { return Ok(Vec::new()) };
        self.is_real = site.random.bool();
        let Some(pid) = self.serving(site, victim) else {
            // It is just being started.
            site.give_back(victim);
            return Ok(Vec::new());
        };
        (self.victim, self.pid) = (Some(victim), pid);
        if self.is_real {
            site.cluster.kill_real_driver(victim)?;
        } else {
            site.cluster.kill_driver(victim)?;
        }
        Ok(vec![victim])
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let victim = self.victim.take().context("no driver was killed")?;
        let next = self.serving(site, victim).filter(|pid| *pid != self.pid);
        site.give_back(victim);
        let whose = if self.is_real { "hypervisor's" } else { "simulated host's" };
        Ok(match next {
            Some(next) => Ok(format!("a {whose}: {} was killed, {next} serves", self.pid)),
            None => Err("the node has started no other one".to_owned()),
        })
    }
}
