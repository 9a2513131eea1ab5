//! The driver of a node's host is killed. Its guests go on, and the node starts another one.

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::{Fault, Proof, Site};

#[derive(Default)]
pub(super) struct DriverKilled {
    victim: Option<usize>,
    pid: i32,
}

#[async_trait]
impl Fault for DriverKilled {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.take() else { return Ok(Vec::new()) };
        let Some(pid) = site.cluster.driver(victim) else {
            // It is just being started.
            site.give_back(victim);
            return Ok(Vec::new());
        };
        (self.victim, self.pid) = (Some(victim), pid.as_raw_nonzero().get());
        site.cluster.kill_driver(victim)?;
        Ok(vec![victim])
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let victim = self.victim.take().context("no driver was killed")?;
        let next = site.cluster.driver(victim).filter(|pid| pid.as_raw_nonzero().get() != self.pid);
        site.give_back(victim);
        Ok(match next {
            Some(next) => Ok(format!("{} was killed, {} serves", self.pid, next.as_raw_nonzero())),
            None => Err("the node has started no other one".to_owned()),
        })
    }
}
