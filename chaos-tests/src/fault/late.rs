//! What other nodes send to a node is late, and one packet overtakes another.

use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::{Fault, Proof, Site};

/// The latest that a packet may be, milliseconds: up to more than an election takes.
const MOST_MS: std::ops::RangeInclusive<u64> = 50..=800;

#[derive(Default)]
pub(super) struct Late {
    late: Option<lab::Late>,
}

#[async_trait]
impl Fault for Late {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.pick() else { return Ok(Vec::new()) };
        let most = Duration::from_millis(site.random.u64(MOST_MS));
        self.late = Some(site.cluster.make_late(victim, most)?);
        Ok(vec![victim])
    }

    async fn mend(&mut self, _: &mut Site) -> Result<Proof> {
        let late = self.late.take().context("nothing is late")?.end()?;
        let told = format!("{} packets late, {} overtaken", late.packets, late.overtaken);
        Ok(if late.overtaken > 0 { Ok(told) } else { Err(told) })
    }
}
