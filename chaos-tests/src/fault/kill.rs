//! A node's process is killed.

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::{Fault, Proof, Site};

#[derive(Default)]
pub(super) struct Kill {
    victim: Option<usize>,
}

#[async_trait]
impl Fault for Kill {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.take() else { return Ok(Vec::new()) };
        self.victim = Some(victim);
        site.cluster.kill(victim)?;
        Ok(vec![victim])
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let victim = self.victim.take().context("nobody was killed")?;
        let gone = site.cluster.process_state(victim).is_none();
        site.cluster.run(victim)?;
        site.give_back(victim);
        let proof = gone.then(|| "its process was gone".to_owned());
        Ok(proof.ok_or_else(|| "its process was there all the time".to_owned()))
    }
}
