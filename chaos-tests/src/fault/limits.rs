//! A node may use little of the processor or of memory, or gets no time at all.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use anyhow::{Context, Result};
use async_trait::async_trait;
use lab::{Limit, Limited};

use super::{Fault, Proof, Site, kill::SIGKILL};

pub(super) struct Limits {
    limit: Limit,
    victim: Option<(usize, Limited)>,
}

impl Limits {
    pub(super) fn of(limit: Limit) -> Limits {
        Limits { limit, victim: None }
    }
}

#[async_trait]
impl Fault for Limits {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.take() else { return Ok(Vec::new()) };
        self.victim = Some((victim, site.cluster.limit(victim, self.limit)?));
        Ok(vec![victim])
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let (victim, limited) = self.victim.take().context("nobody is limited")?;
        let count = limited.end()?;
        // Who needs more memory than there is was killed, and takes a moment to end.
        let may_end = matches!(self.limit, Limit::Memory(_)) && count > 0;
        let mut ended = site.cluster.ended(victim);
        for _ in 0..if may_end { 20 } else { 0 } {
            if ended.is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
                ended = site.cluster.ended(victim);
            }
        }
        if let Some(how) = ended {
            if !may_end || how.signal() != Some(SIGKILL) {
                site.complain(victim, format!("under {:?} it ended: {how}", self.limit));
            }
            site.cluster.kill(victim)?;
            site.cluster.run(victim)?;
        }
        site.give_back(victim);
        let ended = ended.map(|how| format!(", its node: {how}")).unwrap_or_default();
        let told = format!("{:?}, reached {count} times{ended}", self.limit);
        Ok(if count > 0 { Ok(told) } else { Err(told) })
    }
}
