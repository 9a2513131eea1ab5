//! Actors of a node panic in the middle of what they do; whoever supervises them starts them again.

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::{Fault, Proof, Site};

#[derive(Default)]
pub(super) struct Panics {
    victim: Option<usize>,
    before: usize,
}

#[async_trait]
impl Fault for Panics {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.take() else { return Ok(Vec::new()) };
        self.victim = Some(victim);
        self.before = site.cluster.planted_panics(victim);
        site.cluster.plant_panics(victim)?;
        Ok(vec![victim])
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let victim = self.victim.take().context("nobody panicked")?;
        let count = site.cluster.planted_panics(victim).saturating_sub(self.before);
        site.give_back(victim);
        let told = format!("{count} actors panicked");
        Ok(if count > 0 { Ok(told) } else { Err(told) })
    }
}
