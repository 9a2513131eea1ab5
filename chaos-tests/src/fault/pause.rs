//! A node's process stands still.

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::{Fault, Proof, Site};

#[derive(Default)]
pub(super) struct Pause {
    victim: Option<usize>,
}

#[async_trait]
impl Fault for Pause {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.take() else { return Ok(Vec::new()) };
        self.victim = Some(victim);
        site.cluster.pause(victim)?;
        Ok(vec![victim])
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let victim = self.victim.take().context("nobody was paused")?;
        let state = site.cluster.process_state(victim);
        site.cluster.resume(victim)?;
        site.give_back(victim);
        let told = format!("its process was in the state {}", state.unwrap_or('?'));
        Ok(if state == Some('T') { Ok(told) } else { Err(told) })
    }
}
