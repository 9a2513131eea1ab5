//! A node's disk takes nothing for a while: whoever writes or syncs waits.

use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use lab::Waiting;

use super::{Fault, Proof, Site};

/// What a disk that is well takes at most for a few bytes, on a busy machine.
const WELL: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct HungDisk {
    victim: Option<(usize, Waiting)>,
}

#[async_trait]
impl Fault for HungDisk {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.take() else { return Ok(Vec::new()) };
        self.victim = Some((victim, site.cluster.freeze_disk(victim)?));
        Ok(vec![victim])
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let (victim, waiting) = self.victim.take().context("no disk hangs")?;
        site.cluster.thaw_disk(victim)?;
        site.give_back(victim);
        let waited = waiting.end()?;
        let told = format!("a write waited {waited:.1?}");
        Ok(if waited > WELL { Ok(told) } else { Err(told) })
    }
}
