//! A node's disk fails to sync: the node stops, since it may not acknowledge anything.

use anyhow::{Context, Result};
use async_trait::async_trait;
use lab::{TamperedSyncs, Tampering};

use super::{Fault, Proof, Site};

#[derive(Default)]
pub(super) struct FailingDisk {
    victim: Option<(usize, TamperedSyncs)>,
}

#[async_trait]
impl Fault for FailingDisk {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.take() else { return Ok(Vec::new()) };
        self.victim = Some((victim, site.cluster.tamper_with_syncs(victim, Tampering::Fail)?));
        Ok(vec![victim])
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let (victim, syncs) = self.victim.take().context("no disk fails")?;
        let failed = syncs.end()?;
        let stopped = failed > 0 && site.has_stopped(victim).await;
        // It may stop slowly, and has to come back in any case.
        site.cluster.kill(victim)?;
        site.cluster.run(victim)?;
        site.give_back(victim);
        let told = format!("{failed} syncs failed, its node stopped: {stopped}");
        Ok(if failed > 0 { Ok(told) } else { Err(told) })
    }
}
