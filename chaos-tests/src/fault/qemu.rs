//! The QEMUs that execute the guests of a node's hypervisor are killed.

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::{Fault, Proof, Site};

#[derive(Default)]
pub(super) struct QemusKilled {
    victim: Option<usize>,
    killed: usize,
}

#[async_trait]
impl Fault for QemusKilled {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.take() else { return Ok(Vec::new()) };
        self.killed = site.cluster.kill_guests(victim)?;
        if self.killed == 0 {
            // Another host, or this one later.
            site.give_back(victim);
            return Ok(Vec::new());
        }
        self.victim = Some(victim);
        Ok(vec![victim])
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        site.give_back(self.victim.take().context("no QEMU was killed")?);
        Ok(Ok(format!("{} QEMUs were killed", self.killed)))
    }
}
