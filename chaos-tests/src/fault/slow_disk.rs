//! Every sync of a node takes long.

use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use lab::{TamperedSyncs, Tampering};

use super::{Fault, Proof, Site};

#[derive(Default)]
pub(super) struct SlowDisk {
    victim: Option<(usize, TamperedSyncs)>,
}

#[async_trait]
impl Fault for SlowDisk {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.take() else { return Ok(Vec::new()) };
        let by = Duration::from_millis(site.random.u64(50..500));
        self.victim = Some((victim, site.cluster.tamper_with_syncs(victim, Tampering::Delay(by))?));
        Ok(vec![victim])
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let (victim, syncs) = self.victim.take().context("no disk is slow")?;
        let delayed = syncs.end()?;
        site.give_back(victim);
        let told = format!("{delayed} syncs took longer");
        Ok(if delayed > 0 { Ok(told) } else { Err(told) })
    }
}
