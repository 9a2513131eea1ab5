//! All guests of a node's host crash.

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::{Fault, Proof, Site};

#[derive(Default)]
pub(super) struct Crash {
    victim: Option<usize>,
    before: usize,
}

#[async_trait]
impl Fault for Crash {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.take() else { return Ok(Vec::new()) };
        self.before = site.cluster.crashed_guests(victim);
        if site.cluster.crash_guests(victim).is_err() {
            // Its driver is just being started.
            site.give_back(victim);
            return Ok(Vec::new());
        }
        self.victim = Some(victim);
        Ok(vec![victim])
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let victim = self.victim.take().context("no guests crashed")?;
        let count = site.cluster.crashed_guests(victim).saturating_sub(self.before);
        site.give_back(victim);
        let told = format!("{count} guests crashed");
        Ok(if count > 0 { Ok(told) } else { Err(told) })
    }
}
