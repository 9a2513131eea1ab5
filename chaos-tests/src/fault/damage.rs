//! The log of a node that does not run is damaged. What cannot be mended it must notice, and not serve; half a
//! write at the end is what a crash leaves, and it goes on.

use anyhow::{Context, Result};
use async_trait::async_trait;
use lab::Flipped;

use super::{Fault, Proof, Site};

/// What a node that cannot trust its data ends with.
const DAMAGED: i32 = 3;

/// One bit of what was synced is another.
#[derive(Default)]
pub(super) struct FlippedBit {
    victim: Option<(usize, Flipped)>,
}

#[async_trait]
impl Fault for FlippedBit {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.take() else { return Ok(Vec::new()) };
        site.cluster.kill(victim)?;
        let flipped = site.cluster.flip_bit(victim)?;
        site.cluster.run(victim)?;
        let Some(flipped) = flipped else {
            site.give_back(victim);
            return Ok(Vec::new());
        };
        self.victim = Some((victim, flipped));
        Ok(vec![victim])
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let (victim, flipped) = self.victim.take().context("no bit is flipped")?;
        let refused = site.has_stopped(victim).await;
        if !refused && site.views().await[victim].is_some() {
            site.complain(victim, "it serves with a damaged log".to_owned());
        }
        let ended = site.cluster.kill(victim)?;
        flipped.mend()?;
        site.cluster.run(victim)?;
        site.give_back(victim);
        let code = ended.and_then(|ended| ended.code());
        let told = format!("its node ended with {code:?}");
        Ok(if refused && code == Some(DAMAGED) { Ok(told) } else { Err(told) })
    }
}

/// Half a write at the end.
#[derive(Default)]
pub(super) struct TornTail {
    victim: Option<(usize, usize)>,
}

#[async_trait]
impl Fault for TornTail {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.take() else { return Ok(Vec::new()) };
        site.cluster.kill(victim)?;
        self.victim = Some((victim, site.cluster.tear_tail(victim)?));
        Ok(vec![victim])
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let (victim, bytes) = self.victim.take().context("no tail is torn")?;
        site.cluster.run(victim)?;
        let refused = site.has_stopped(victim).await;
        if refused {
            site.complain(victim, "it does not run after half a write".to_owned());
            site.cluster.kill(victim)?;
            site.cluster.run(victim)?;
        }
        site.give_back(victim);
        let told = format!("{bytes} bytes of half a write, its node refused: {refused}");
        Ok(if refused { Err(told) } else { Ok(told) })
    }
}
