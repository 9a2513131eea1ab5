//! A node's process is killed. Some are started again at once, before anybody has missed them, and killed once
//! more.

use std::os::unix::process::ExitStatusExt;

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::{Fault, Proof, Site};

pub(super) const SIGKILL: i32 = 9;

#[derive(Default)]
pub(super) struct Kill {
    victim: Option<usize>,
    /// What ended its process.
    signal: Option<i32>,
}

#[async_trait]
impl Fault for Kill {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.take() else { return Ok(Vec::new()) };
        self.victim = Some(victim);
        let ended = site.cluster.kill(victim)?;
        self.signal = ended.and_then(|status| status.signal());
        if site.random.bool() {
            site.cluster.run(victim)?;
        }
        Ok(vec![victim])
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let victim = self.victim.take().context("nobody was killed")?;
        // It may run already.
        if let Some(how) = site.cluster.ended(victim) {
            site.complain(victim, format!("started again, it ended by itself: {how}"));
        }
        site.cluster.kill(victim)?;
        site.cluster.run(victim)?;
        site.give_back(victim);
        let told = format!("its process was ended by signal {}", self.signal.unwrap_or_default());
        Ok(if self.signal == Some(SIGKILL) { Ok(told) } else { Err(told) })
    }
}
