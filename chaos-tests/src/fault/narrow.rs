//! A node's link carries little.

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::{Fault, Proof, Site};

/// Less than what a leader sends under load, kbit/s.
const RATE_KBIT: std::ops::RangeInclusive<u32> = 64..=256;

#[derive(Default)]
pub(super) struct Narrow {
    victim: Option<usize>,
}

#[async_trait]
impl Fault for Narrow {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.pick() else { return Ok(Vec::new()) };
        site.cluster.narrow(victim, site.random.u32(RATE_KBIT))?;
        self.victim = Some(victim);
        Ok(vec![victim])
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let waited = site.cluster.widen(self.victim.context("no link is narrow")?)?;
        let told = format!("packets waited {waited} times");
        Ok(if waited > 0 { Ok(told) } else { Err(told) })
    }
}
