//! A node's disk is full: the node goes on in what it has, or stops and comes back when there is room.

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::{Fault, Proof, Site};

#[derive(Default)]
pub(super) struct FullDisk {
    victim: Option<usize>,
    took_no_more: bool,
}

#[async_trait]
impl Fault for FullDisk {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.take() else { return Ok(Vec::new()) };
        self.victim = Some(victim);
        self.took_no_more = site.cluster.fill_disk(victim, 100)?;
        Ok(vec![victim])
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let victim = self.victim.take().context("no disk is full")?;
        let stopped = site.cluster.ended(victim).is_some();
        site.cluster.free_disk(victim)?;
        // It may be about to stop, and has to come back in any case.
        site.cluster.kill(victim)?;
        site.cluster.run(victim)?;
        site.give_back(victim);
        let told = format!("it took no more: {}, its node stopped: {stopped}", self.took_no_more);
        Ok(if self.took_no_more { Ok(told) } else { Err(told) })
    }
}
